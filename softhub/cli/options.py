"""Options that several verbs share, and the adapter that a verb's first argument names."""

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from softhub.cli.output import check_output
from softhub.config import expand_user
from softhub.errors import ConfigError
from softhub.experiments.console import say
from softhub.terminal import QUIET, phase, quiet_libraries

if TYPE_CHECKING:
    from softhub.inference.engine import PromptModel
    from softhub.inference.predictor import Predictor
    from softhub.model.prompt import SoftPrompt
    from softhub.tasks import Task

PROMPT = "prompt"  # the name of the adapter in the model


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
DeviceOption = Annotated[
    str | None,
    option("Device of the base model: cpu, cuda, mps or auto.", "DEVICE", show_default="cpu"),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Use an adapter that was trained for another base model.")
]
OutputOption = Annotated[
    Path | None,
    option(
        "Write to this .csv, .jsonl or .parquet file instead.",
        "FILE",
        "--output",
        "-o",
        callback=check_output,
    ),
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
        typer.BadParameter: It is empty, or it is a folder and a revision was given.
    """
    from softhub.adapter.validation import check_interrupted_save

    if not ref.strip():
        raise typer.BadParameter("the name of the adapter is empty; give a folder or a repository")
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


@dataclass(frozen=True)
class AdapterOnBase:
    """An adapter, the base model that it runs on, and how both are found."""

    adapter: AdapterArgument
    base: BaseOption
    device: DeviceOption = None
    revision: RevisionOption = None
    hub: HubOption = None
    force: ForceOption = False

    def folder(self) -> Path:
        """Return the adapter's folder, which is pulled unless it is one; see `adapter_folder`."""
        return adapter_folder(self.adapter, hub=self.hub, revision=self.revision)

    def load(self, folder: Path, task: Path | None = None) -> "PromptModel":
        """Return the base model with the adapter in a folder loaded under the name `PROMPT`.

        Args:
            folder: The adapter's folder.
            task: Task file for an adapter without a task.
        """
        from softhub.inference.engine import PromptModel
        from softhub.model.loading import load_base
        from softhub.model.prompt import SoftPrompt

        prompt = SoftPrompt.from_pretrained(folder)
        own_task = _task_of_file(task, prompt)
        with phase(f"Loading {self.base}"):
            model = PromptModel(load_base(self.base, device_map=self.device))
        model.load_prompt(prompt, name=PROMPT, task=own_task, force=self.force)
        return model

    def predictor(
        self,
        task: Path | None,
        method: Literal["predict", "generate"],
        options: Mapping[str, Any],
    ) -> "Predictor":
        """Return a `Predictor` with the adapter as its only prompt; see `load`."""
        from softhub.inference.predictor import Predictor
        from softhub.model.prompt import SoftPrompt

        folder = self.folder()
        replacing = SoftPrompt.from_pretrained(folder) if task else None
        return Predictor(
            self.base,
            folder,
            method=method,
            task=_task_of_file(task, replacing),
            load={"device_map": self.device},
            force=self.force,
            **options,
        )


def _task_of_file(file: Path | None, prompt: "SoftPrompt | None") -> "Task | None":
    """Return the task of a file; a warning says if it replaces that of the adapter."""
    from softhub.tasks import Task

    if file is None or prompt is None:
        return None
    own = prompt.manifest.task
    if own is not None:
        name = own.get("name")
        say(f"warning: {file} replaces the adapter's own task, {name}, and its calibration")
    return Task.from_file(file)


def takes_adapter(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the argument and options of `AdapterOnBase` in place of its first parameter."""

    @wraps(verb)
    def call(**values: Any) -> None:
        verb(AdapterOnBase(**{name: values.pop(name) for name in fields}), **values)

    fields = inspect.signature(AdapterOnBase, eval_str=True).parameters
    own = [*inspect.signature(verb, eval_str=True).parameters.values()][1:]
    return _with_parameters(call, {**fields, **{each.name: each for each in own}})


def can_be_quiet(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the option `--quiet`."""

    @wraps(verb)
    def call(*, quiet: bool, **values: Any) -> None:
        if quiet:
            os.environ[QUIET] = "1"
            quiet_libraries()
        verb(**values)

    parameters = inspect.signature(verb, eval_str=True).parameters
    text = "Print data, warnings and errors only."
    flag = Annotated[bool, typer.Option("--quiet", "-q", help=text)]
    kind = inspect.Parameter.KEYWORD_ONLY
    quiet = inspect.Parameter("quiet", kind, default=False, annotation=flag)
    return _with_parameters(call, {**parameters, "quiet": quiet})


def _with_parameters(
    call: Callable[..., None], parameters: Mapping[str, inspect.Parameter]
) -> Callable[..., None]:
    """Declare a function's parameters, which typer reads."""
    kind = inspect.Parameter.KEYWORD_ONLY
    declared = [each.replace(kind=kind) for each in parameters.values()]
    call.__signature__ = inspect.Signature(declared)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in declared}
    return call
