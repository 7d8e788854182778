"""Verbs about who one is: login and whoami."""

from softhub.cli.options import HubOption
from softhub.cli.output import emit


def login() -> None:
    """Log in to huggingface.co, by huggingface_hub's own dialogue.

    The token is kept where all of Hugging Face's tools keep it, and softhub sends it to
    huggingface.co alone. For another hub, set SOFTHUB_HUB and SOFTHUB_TOKEN together.
    """
    from huggingface_hub import login as dialogue

    dialogue()


def whoami(hub: HubOption = None) -> None:
    """Print the name under which pushes to the hub appear."""
    from softhub.hub import Hub

    emit(Hub(hub).whoami())
