"""Options that several verbs share, and the adapter that a verb's first argument names."""

from pathlib import Path
from typing import Annotated, Any

import typer

from softhub.config import expand_user
from softhub.errors import ConfigError


def option(text: str, metavar: str, *names: str, **settings: Any) -> Any:
    """Return a typer option that takes a value.

    Args:
        text: Its help text.
        metavar: What the help shows for the value.
        *names: Its flags; the default is the name of the parameter.
        **settings: Further arguments of `typer.Option`.
    """
    return typer.Option(*names, metavar=metavar, help=text, **settings)


EXISTING_FILE = {"exists": True, "dir_okay": False}
AdapterArgument = Annotated[
    str, typer.Argument(metavar="ADAPTER", help="Adapter: a folder, or a repository on the hub.")
]
RepoArgument = Annotated[str, typer.Argument(metavar="REPO_ID", help="NAMESPACE/NAME.")]
HubOption = Annotated[
    str | None,
    option(
        "local, local:FOLDER, hf or hf+https://HOST.",
        "URI",
        "--hub",
        envvar="SOFTHUB_HUB",
        show_default="local",
    ),
]
RevisionOption = Annotated[str | None, option("Tag, branch or commit.", "REV", show_default="main")]
LimitOption = Annotated[int, typer.Option(min=1, help="Maximum number of results.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BaseOption = Annotated[
    str,
    option(
        "Base model: Hugging Face repository, folder or .gguf file.",
        "MODEL",
        "--base",
        envvar="SOFTHUB_BASE",
    ),
]
DeviceMapOption = Annotated[
    str | None, option("Device of the base model: cuda, auto, …", "MAP", show_default="cpu")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Use an adapter that was trained for another base model.")
]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Texts per batch.")]
TaskOption = Annotated[Path, option("Task file.", "FILE", "--task", **EXISTING_FILE)]
SplitOption = Annotated[str, option("train, dev or test.", "SPLIT")]
SubsetOption = Annotated[
    int | None, typer.Option(min=1, help="Maximum number of examples (fixed subset).")
]


def is_folder(ref: str, *, revision: str | None) -> bool:
    """Return whether `ref` is a folder rather than a repository on the hub.

    Raises:
        ConfigError: It can only be a path, and there is no such folder.
        InvalidAdapter: Saving to it was interrupted; says where the earlier adapter is.
        typer.BadParameter: It is a folder, and a revision was given.
    """
    from softhub.adapter.validation import check_interrupted_save

    folder = expand_user(ref)
    if folder.is_dir():
        if revision is not None:
            raise typer.BadParameter(
                f"{ref!r} is a folder, and folders have no revisions. Remove --revision, or run "
                "the command in a directory without a folder of that name."
            )
        return True
    check_interrupted_save(folder)
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
        return expand_user(ref)
    from softhub.hub import Hub

    return Hub(hub).pull(ref, revision=revision or "main")
