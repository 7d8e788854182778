"""`softhub predict` and `softhub generate`: texts in, labels or new text out."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softhub.cli.options import (
    AdapterArgument,
    HubOption,
    JsonOption,
    RevisionOption,
    adapter_folder,
)
from softhub.cli.output import (
    emit,
    emit_json,
    emit_table,
    progress,
    quiet_libraries,
)
from softhub.errors import DatasetError

if TYPE_CHECKING:
    from softhub.inference.engine import Prediction, PromptModel

Text = str | dict[str, Any]
"""A text, or a row with a value for each column of the template (a line of a JSONL file)."""

_BATCHES_A_STEP = 8
_SHOWN_LABELS = 3

TextsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="TEXT", help="One text or more.")
]
FileOption = Annotated[
    str | None,
    typer.Option(
        "--file",
        metavar="FILE",
        help="Texts from a file, one a line; .jsonl: a string or a row of the template's columns a "
        "line; - is stdin.",
    ),
]
BaseOption = Annotated[
    str,
    typer.Option(
        "--base",
        envvar="SOFTHUB_BASE",
        metavar="REF",
        help="The base model: Hub repo id, folder, or .gguf file.",
        show_default=False,
    ),
]
DeviceMapOption = Annotated[
    str | None,
    typer.Option(metavar="MAP", help="Where the base goes: cuda, auto, … [default: the CPU]"),
]
TaskOption = Annotated[
    Path | None,
    typer.Option(
        "--task",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Task (YAML) to use the adapter with; for one that brings none.",
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Use it even though it was made for another base.")
]


def predict(
    adapter: AdapterArgument,
    texts: TextsArgument = None,
    *,
    base: BaseOption,
    file: FileOption = None,
    revision: RevisionOption = None,
    hub: HubOption = None,
    task: TaskOption = None,
    abstain_below: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="P",
            help="Give no label where its probability is below this. [default: what the task says]",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in one pass.")] = 32,
    device_map: DeviceMapOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Classify texts: a label and its probability for each.

    With --json, one object a line: input, label (null where it abstains), probabilities, scores,
    and for a multi-label task labels.
    """
    inputs = read_inputs(texts, file)
    folder = adapter_folder(adapter, hub=hub, revision=revision)
    model, name = load_model(base, folder, task=task, device_map=device_map, force=force)

    def run(part: Sequence[Text]) -> list["Prediction"]:
        return model.predict(part, prompt=name, abstain_below=abstain_below, batch_size=batch_size)

    results = _in_steps(run, inputs, batch_size, "classifying")
    if as_json:
        for text, result in results:
            emit_json({"input": text, **_record(result)}, indent=None)
    else:
        rows = [(_answer(result), _odds(result), _shown(text)) for text, result in results]
        emit_table(("label", "probabilities", "text"), rows)


def generate(
    adapter: AdapterArgument,
    texts: TextsArgument = None,
    *,
    base: BaseOption,
    file: FileOption = None,
    revision: RevisionOption = None,
    hub: HubOption = None,
    task: TaskOption = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Most new tokens. [default: what the task says, or 64]"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in one pass.")] = 8,
    device_map: DeviceMapOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate text: what the base model writes after each.

    With --json, one object a line: input, output.
    """
    inputs = read_inputs(texts, file)
    folder = adapter_folder(adapter, hub=hub, revision=revision)
    model, name = load_model(base, folder, task=task, device_map=device_map, force=force)
    options: dict[str, Any] = {}
    if max_new_tokens is not None:
        options["max_new_tokens"] = max_new_tokens

    def run(part: Sequence[Text]) -> list[str]:
        return model.generate(part, prompt=name, batch_size=batch_size, **options)

    for text, output in _in_steps(run, inputs, batch_size, "generating"):
        if as_json:
            emit_json({"input": text, "output": output}, indent=None)
        else:
            emit(output)


def read_inputs(texts: list[str] | None, file: str | None) -> list[Text]:
    """Return the texts of the command line or those of a file.

    Raises:
        typer.BadParameter: Both were given, or neither.
        DatasetError: The file cannot be read, holds nothing, or has a line that is no input.
    """
    if bool(texts) == (file is not None):
        raise typer.BadParameter("give TEXT after the adapter, or --file FILE (- is stdin)")
    inputs: list[Text] = list(texts or []) if file is None else list(_read_file(file))
    if not inputs:
        raise DatasetError(f"{file} holds no text; expected one on each line")
    return inputs


def _read_file(file: str) -> Iterator[Text]:
    try:
        content = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DatasetError(f"cannot read {file!r}: {reason}") from error
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            yield _parse(line, f"{file}:{number}") if file.endswith(".jsonl") else line.rstrip("\r")


def _parse(line: str, where: str) -> Text:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DatasetError(f"{where}: not valid JSON: {error}; the line may be cut off") from error
    if isinstance(value, str | dict):
        return value
    raise DatasetError(
        f"{where}: found {line.strip():.40}; expected a string, or an object with the template's "
        'columns, e.g. {"text": "…"}'
    )


def load_model(
    base: str, folder: Path, *, task: Path | None, device_map: str | None, force: bool
) -> tuple["PromptModel", str]:
    """Load the base and the adapter, and return them as model and prompt name."""
    quiet_libraries()
    from softhub.inference.engine import PromptModel
    from softhub.model.base import load_base
    from softhub.model.prompt import SoftPrompt
    from softhub.tasks import Task

    soft_prompt = SoftPrompt.from_pretrained(folder)
    wanted = Task.from_file(task) if task else None
    model = PromptModel(load_base(base, device_map=device_map))
    return model, model.load_prompt(soft_prompt, name="prompt", task=wanted, force=force)


def _in_steps(
    run: Callable[[Sequence[Text]], list[Any]], inputs: list[Text], batch_size: int, what: str
) -> list[tuple[Text, Any]]:
    """Run over a few batches at a time, so that there is something to see meanwhile."""
    step = batch_size * _BATCHES_A_STEP
    parts = [inputs[start : start + step] for start in range(0, len(inputs), step)]
    results = [result for part in progress(parts, what) for result in run(part)]
    return list(zip(inputs, results, strict=True))


def _record(prediction: "Prediction") -> dict[str, Any]:
    return {
        "label": prediction.label,
        "probabilities": dict(prediction.probabilities),
        "scores": dict(prediction.scores),
        **({} if prediction.labels is None else {"labels": list(prediction.labels)}),
    }


def _answer(prediction: "Prediction") -> str:
    if prediction.label is None:
        return "(abstains)"
    return prediction.label or "(none)"  # no label of a multi-label task applies


def _odds(prediction: "Prediction") -> str:
    """The most probable labels with their probabilities."""
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
    shown = [f"{label} {value:.3f}" for label, value in ranked[:_SHOWN_LABELS]]
    return ", ".join(shown) + (", …" if len(ranked) > _SHOWN_LABELS else "")


def _shown(text: Text) -> str:
    if isinstance(text, str):
        return text
    return str(text.get("text") or json.dumps(text, ensure_ascii=False))
