"""Verbs of the account: login and whoami."""

from softhub.cli.options import HubOption
from softhub.cli.output import emit


def login() -> None:
    """Log in to huggingface.co.

    huggingface_hub asks for the token and stores it where all Hugging Face tools look for it.
    softhub sends it to huggingface.co only. For another hub, set both SOFTHUB_HUB and
    SOFTHUB_TOKEN.
    """
    from huggingface_hub import login as log_in

    log_in()


def whoami(hub: HubOption = None) -> None:
    """Print the author name of your pushes."""
    from softhub.hub import Hub

    emit(Hub(hub).whoami())
