"""`softhub predict` and `softhub generate`: labels or generated text for input texts."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softhub.cli.options import (
    EXISTING_FILE,
    AdapterArgument,
    BaseOption,
    BatchSizeOption,
    DeviceMapOption,
    ForceOption,
    HubOption,
    JsonOption,
    RevisionOption,
    adapter_folder,
    option,
)
from softhub.cli.output import emit, emit_json, emit_table
from softhub.config import expand_user
from softhub.errors import DatasetError

if TYPE_CHECKING:
    from softhub.inference.engine import Prediction, PromptModel
    from softhub.tasks.split_table import SplitTable

Text = str | dict[str, Any]
"""A text, or a row with a value for each column of the template."""

PROMPT = "prompt"  # the name of the adapter in the model
_SHOWN_LABELS = 3

TextsArgument = Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="Input texts.")]
FileOption = Annotated[
    str | None,
    option(
        "A .txt file with one text per line, or a csv, tsv, xlsx, json, jsonl, parquet or arrow "
        "file with the columns of the template; - is stdin, one text per line.",
        "FILE",
        "--file",
    ),
]
TaskOption = Annotated[
    Path | None,
    option("Task file, for an adapter without a task.", "FILE", "--task", **EXISTING_FILE),
]
AbstainOption = Annotated[
    float | None,
    option(
        "Abstain if the probability is lower than this.",
        "P",
        min=0,
        max=1,
        show_default="the task's setting",
    ),
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
    abstain_below: AbstainOption = None,
    batch_size: BatchSizeOption = 32,
    device_map: DeviceMapOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Classify texts and print each label with its probability.

    --json prints an object per line with input, label (null if the adapter abstains), probabilities
    and scores, and labels if the task is multi-label.
    """
    inputs = read_inputs(texts, file)
    folder = adapter_folder(adapter, hub=hub, revision=revision)
    inputs = check_inputs(inputs, folder, task)
    model = load_model(base, folder, task=task, device_map=device_map, force=force)
    results = model.predict(
        inputs,
        prompt=PROMPT,
        abstain_below=abstain_below,
        batch_size=batch_size,
        progress="Classifying",
    )
    pairs = list(zip(inputs, results, strict=True))
    if as_json:
        for text, result in pairs:
            emit_json({"input": text, **_record(result)}, indent=None)
    else:
        rows = [(_label(result), _most_probable(result), _shown(text)) for text, result in pairs]
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
        typer.Option(
            min=1, help="Maximum number of new tokens.", show_default="the task's setting, or 64"
        ),
    ] = None,
    batch_size: BatchSizeOption = 8,
    device_map: DeviceMapOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate a text for each input text.

    --json prints an object per line with input and output.
    """
    inputs = read_inputs(texts, file)
    folder = adapter_folder(adapter, hub=hub, revision=revision)
    inputs = check_inputs(inputs, folder, task)
    model = load_model(base, folder, task=task, device_map=device_map, force=force)
    options: dict[str, Any] = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    outputs = model.generate(
        inputs, prompt=PROMPT, batch_size=batch_size, progress="Generating", **options
    )
    for text, output in zip(inputs, outputs, strict=True):
        if as_json:
            emit_json({"input": text, "output": output}, indent=None)
        else:
            emit(output)


def read_inputs(texts: list[str] | None, file: str | None) -> "list[Text] | SplitTable":
    """Return the texts of the command line or of stdin, or the rows of a file.

    Raises:
        typer.BadParameter: Both were given, or neither.
        DatasetError: The file cannot be read, is empty, or has an invalid line.
    """
    if bool(texts) == (file is not None):
        raise typer.BadParameter("give texts after the adapter, or --file FILE (- is stdin)")
    if file is not None and file != "-":
        from softhub.tasks.loading import read_inputs as read_table

        return read_table(expand_user(file))
    inputs: list[Text] = [*(texts or _stdin_lines())]
    if not inputs:
        raise DatasetError("stdin contains no text. Write one text per line.")
    return inputs


def _stdin_lines() -> list[str]:
    try:
        lines = sys.stdin.read().split("\n")
    except UnicodeDecodeError as error:
        raise DatasetError(f"stdin is not {error.encoding} text ({error.reason}).") from error
    return [line.rstrip("\r") for line in lines if line.strip()]


def check_inputs(
    inputs: "list[Text] | SplitTable", folder: Path, task: Path | None
) -> "list[Text]":
    """Check the rows of a file against the adapter's task, before the base model is loaded."""
    if isinstance(inputs, list):
        return inputs
    from softhub.model.prompt import SoftPrompt
    from softhub.tasks import Task
    from softhub.tasks.loading import to_inputs

    record = SoftPrompt.from_pretrained(folder).manifest.task
    own = Task.from_record(record) if record else None
    return to_inputs(Task.from_file(task) if task else own, inputs)


def load_model(
    base: str, folder: Path, *, task: Path | None, device_map: str | None, force: bool
) -> "PromptModel":
    """Return the base model with the adapter of a folder loaded under the name `PROMPT`."""
    from softhub.inference.engine import PromptModel
    from softhub.model.base import load_base
    from softhub.model.prompt import SoftPrompt
    from softhub.tasks import Task

    soft_prompt = SoftPrompt.from_pretrained(folder)
    own_task = Task.from_file(task) if task else None
    model = PromptModel(load_base(base, device_map=device_map))
    model.load_prompt(soft_prompt, name=PROMPT, task=own_task, force=force)
    return model


def _record(prediction: "Prediction") -> dict[str, Any]:
    return {
        "label": prediction.label,
        "probabilities": dict(prediction.probabilities),
        "scores": dict(prediction.scores),
        **({} if prediction.labels is None else {"labels": list(prediction.labels)}),
    }


def _label(prediction: "Prediction") -> str:
    if prediction.label is None:
        return "(abstains)"
    return prediction.label or "(none)"  # no label of a multi-label task applies


def _most_probable(prediction: "Prediction") -> str:
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
    shown = [f"{label} {value:.3f}" for label, value in ranked[:_SHOWN_LABELS]]
    return ", ".join(shown) + (", …" if len(ranked) > _SHOWN_LABELS else "")


def _shown(text: Text) -> str:
    if isinstance(text, str):
        return text
    return str(text.get("text") or json.dumps(text, ensure_ascii=False))
