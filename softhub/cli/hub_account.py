"""Verbs of the account: login and whoami."""

from softhub.cli.options import HubOption
from softhub.cli.output import emit
from softhub.errors import HubError


def login() -> None:
    """Log in to huggingface.co.

    huggingface_hub asks for the token and stores it where all Hugging Face tools look for it.
    softhub sends it to huggingface.co only. For another hub, set both SOFTHUB_HUB and
    SOFTHUB_TOKEN.
    """
    from huggingface_hub import login as log_in

    from softhub.hub.records import plain

    try:
        log_in()
    except Exception as error:  # huggingface_hub raises many kinds
        reason = plain(str(error) or type(error).__name__, most=300)
        raise HubError(
            f"The login at huggingface.co failed: {reason}. Check the network and run the command "
            "again, or set HF_TOKEN to an access token."
        ) from error


def whoami(hub: HubOption = None) -> None:
    """Print the author name of your pushes."""
    from softhub.hub import Hub

    emit(Hub(hub).whoami())
