"""Options that several verbs share, and the adapter that a verb's first argument names."""

from pathlib import Path
from typing import Annotated

import typer

from softhub.errors import ConfigError

HubOption = Annotated[
    str | None,
    typer.Option(
        "--hub",
        envvar="SOFTHUB_HUB",
        metavar="URI",
        help="local (the default), local:FOLDER, hf or hf+https://HOST.",
    ),
]
RevisionOption = Annotated[
    str | None,
    typer.Option(metavar="REV", help="Tag, branch or commit of the repository. [default: main]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Use only what was pulled before; ask no remote hub.")
]
AdapterArgument = Annotated[
    str,
    typer.Argument(
        metavar="REPO_OR_FOLDER",
        help="An adapter: a folder if there is one of that name, else a repository on the hub.",
        show_default=False,
    ),
]


def is_folder(ref: str, *, revision: str | None) -> bool:
    """Tell whether `ref` means a folder rather than a repository on the hub.

    Raises:
        ConfigError: It can only be a path, and there is no folder.
        typer.BadParameter: It is a folder, and a revision was asked for.
    """
    if Path(ref).expanduser().is_dir():
        if revision is not None:
            raise typer.BadParameter(
                f"{ref!r} is a folder here, and folders have no revisions; leave --revision out, "
                "or run this where no folder hides the repository"
            )
        return True
    if ref.startswith((".", "/", "~")) or "\\" in ref or ref.count("/") > 1:
        raise ConfigError(
            f"there is no adapter folder at {ref!r}; expected a folder that save_pretrained "
            "wrote, or a repository such as me/sentiment (softhub list shows them)"
        )
    return False


def adapter_folder(ref: str, *, hub: str | None, revision: str | None) -> Path:
    """Return the adapter's folder, pulled from the hub unless `ref` is a folder itself.

    Args:
        ref: Folder, or repository as `namespace/name`.
        hub: The hub's address; None for the default.
        revision: Tag, branch or commit; None for `main`.

    Raises:
        ConfigError: There is no such folder.
        HubError: The repository cannot be pulled.
    """
    if is_folder(ref, revision=revision):
        return Path(ref).expanduser()
    from softhub.hub import Hub

    return Hub(hub).pull(ref, revision=revision or "main")
