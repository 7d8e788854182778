"""Options that several verbs share, and the adapter that a verb's first argument names."""

from pathlib import Path
from typing import Annotated

import typer

from softhub.errors import ConfigError

AdapterArgument = Annotated[
    str,
    typer.Argument(
        metavar="ADAPTER",
        help="Adapter folder, or repository on the hub (a folder of that name comes first).",
    ),
]
RepoArgument = Annotated[str, typer.Argument(metavar="REPO_ID", help="NAMESPACE/NAME.")]
HubOption = Annotated[
    str | None,
    typer.Option(
        "--hub",
        envvar="SOFTHUB_HUB",
        metavar="URI",
        help="local, local:FOLDER, hf or hf+https://HOST.",
        show_default="local",
    ),
]
RevisionOption = Annotated[
    str | None,
    typer.Option(metavar="REV", help="Tag, branch or commit.", show_default="main"),
]
LimitOption = Annotated[int, typer.Option(min=1, help="Maximum number of results.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BaseOption = Annotated[
    str,
    typer.Option(
        "--base",
        envvar="SOFTHUB_BASE",
        metavar="MODEL",
        help="Base model: Hugging Face repository, folder or .gguf file.",
    ),
]
DeviceMapOption = Annotated[
    str | None,
    typer.Option(metavar="MAP", help="Device of the base model: cuda, auto, …", show_default="cpu"),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Use an adapter that was trained for another base model.")
]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Texts per batch.")]
TaskOption = Annotated[
    Path, typer.Option("--task", metavar="FILE", exists=True, dir_okay=False, help="Task file.")
]
SplitOption = Annotated[str, typer.Option(metavar="SPLIT", help="train, dev or test.")]
SubsetOption = Annotated[
    int | None, typer.Option(min=1, help="Maximum number of examples (fixed subset).")
]


def is_folder(ref: str, *, revision: str | None) -> bool:
    """Return whether `ref` is a folder rather than a repository on the hub.

    Raises:
        ConfigError: It can only be a path, and there is no such folder.
        typer.BadParameter: It is a folder, and a revision was given.
    """
    if Path(ref).expanduser().is_dir():
        if revision is not None:
            raise typer.BadParameter(
                f"{ref!r} is a folder, and folders have no revisions. Remove --revision, or run "
                "the command in a directory without a folder of that name."
            )
        return True
    if ref.startswith((".", "/", "~")) or "\\" in ref or ref.count("/") > 1:
        raise ConfigError(
            f"There is no adapter folder at {ref!r}. Give a folder that save_pretrained wrote, or "
            "a repository such as me/sentiment (softhub list shows them)."
        )
    return False


def adapter_folder(ref: str, *, hub: str | None, revision: str | None) -> Path:
    """Return the adapter's folder, which is pulled from the hub unless `ref` is a folder.

    Args:
        ref: Folder, or repository as `namespace/name`.
        hub: Address of the hub; None for the default.
        revision: Tag, branch or commit; None for `main`.

    Raises:
        ConfigError: There is no such folder.
        HubError: The repository cannot be pulled.
    """
    if is_folder(ref, revision=revision):
        return Path(ref).expanduser()
    from softhub.hub import Hub

    return Hub(hub).pull(ref, revision=revision or "main")
