"""`softhub predict` and `softhub generate`: labels or generated text for input texts."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from softhub.cli.options import (
    EXISTING_FILE,
    PROMPT,
    AdapterOnBase,
    BatchSizeOption,
    JsonOption,
    OutputOption,
    option,
    takes_adapter,
)
from softhub.cli.output import check_one_format, emit, emit_json, emit_table
from softhub.config import expand_user
from softhub.errors import DatasetError
from softhub.experiments.console import note, say
from softhub.terminal import counted, phase

if TYPE_CHECKING:
    from softhub.inference.engine import Prediction
    from softhub.tasks.row_source import RowSource
    from softhub.tasks.split_table import SplitTable

Text = str | dict[str, Any]
"""A text, or a row with a value for each column of the template."""

_SHOWN_LABELS = 3
_BATCHES_SAVED = 16  # batches after which the answers are saved

TextsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="TEXT", help="Input texts; - is stdin.")
]
InputOption = Annotated[
    str | None,
    option(
        "A .txt file with one text per line, or a csv, tsv, xlsx, json, jsonl, parquet or arrow "
        "file with the columns of the template; - is stdin, one text per line.",
        "FILE",
        "--input",
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


@takes_adapter
def predict(
    source: AdapterOnBase,
    texts: TextsArgument = None,
    *,
    file: InputOption = None,
    task: TaskOption = None,
    abstain_below: AbstainOption = None,
    batch_size: BatchSizeOption = 32,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Classify texts and print each label with its probability.

    Without texts and --input, the lines of stdin are read. --json prints an object per line with
    input, label (null if the adapter abstains), probabilities and scores, and labels if the task is
    multi-label. --output adds the columns predicted_label, abstained, probabilities.LABEL and
    error to those of the input; if it is interrupted, the same command continues.
    """
    check_one_format(output, as_json)
    if output is not None:
        options = {"batch_size": batch_size, "abstain_below": abstain_below}
        return _write(source, _rows(texts, file), output, task, "predict", options)
    inputs, folder = read_inputs(texts, file), source.folder()
    inputs = check_inputs(inputs, folder, task)
    results = source.load(folder, task).predict(
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


@takes_adapter
def generate(
    source: AdapterOnBase,
    texts: TextsArgument = None,
    *,
    file: InputOption = None,
    task: TaskOption = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Maximum number of new tokens.", show_default="the task's setting, or 64"
        ),
    ] = None,
    batch_size: BatchSizeOption = 8,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate a text for each input text.

    Without texts and --input, the lines of stdin are read. --json prints an object per line with
    input and output. --output adds the columns generated_text and error to those of the input; if
    it is interrupted, the same command continues.
    """
    check_one_format(output, as_json)
    options: dict[str, Any] = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    if output is not None:
        options["batch_size"] = batch_size
        _write(source, _rows(texts, file), output, task, "generate", options)
        return
    inputs = read_inputs(texts, file)
    folder = source.folder()
    inputs = check_inputs(inputs, folder, task)
    model = source.load(folder, task)
    outputs = model.generate(
        inputs, prompt=PROMPT, batch_size=batch_size, progress="Generating", **options
    )
    for text, found in zip(inputs, outputs, strict=True):
        if as_json:
            emit_json({"input": text, "output": found}, indent=None)
        else:
            emit(found)


def _write(
    source: AdapterOnBase,
    rows: "RowSource",
    output: Path,
    task: Path | None,
    method: Literal["predict", "generate"],
    options: Mapping[str, Any],
) -> None:
    """Answer rows and write them with their answers to a file."""
    from softhub.inference.file_prediction import check_file, predict_file

    predictor = source.predictor(task, method, options)
    check_file(predictor, rows, output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with phase(f"Loading {source.base}"):
        predictor.model  # noqa: B018  # loads it
    progress = "Classifying" if method == "predict" else "Generating"
    chunk = _BATCHES_SAVED * options["batch_size"]
    report = predict_file(predictor, rows, output, chunk_size=chunk, progress=progress)
    if report.failed:
        say(
            f"warning: {report.failed} of {counted(report.rows, 'row')} have no answer (see the "
            f"column 'error'); the first: {report.first_error}"
        )
    note(f"Wrote {counted(report.rows, 'row')} to {output}")


def _rows(texts: list[str] | None, file: str | None) -> "RowSource":
    """Return the rows of `read_inputs` as a source that is read a few at a time."""
    from softhub.tasks.row_source import RowSource

    given = _given(texts, file)
    return RowSource.of_file(given) if isinstance(given, Path) else RowSource.of_texts(given)


def read_inputs(texts: list[str] | None, file: str | None) -> "list[Text] | SplitTable":
    """Return the texts of the command line, the rows of a file, or the lines of stdin.

    Raises:
        typer.BadParameter: Both were given, or neither and stdin is a terminal.
        DatasetError: The file cannot be read, is empty, or has an invalid line.
    """
    given = _given(texts, file)
    if isinstance(given, Path):
        from softhub.tasks.loading import read_inputs as read_table

        return read_table(given)
    return [*given]


def _given(texts: list[str] | None, file: str | None) -> list[str] | Path:
    """Return the texts of the command line or of stdin, or the file to read."""
    if file is None and (texts == ["-"] or (not texts and not sys.stdin.isatty())):
        texts, file = None, "-"
    if bool(texts) == (file is not None):
        raise typer.BadParameter(
            "give texts after the adapter, or --input FILE, or pipe one text per line to stdin"
        )
    if file is not None and file != "-":
        return expand_user(file)
    _check_arguments(texts or [])
    inputs = texts or _stdin_lines()
    if not inputs:
        raise DatasetError("stdin contains no text. Write one text per line.")
    return inputs


def _check_arguments(texts: list[str]) -> None:
    for place, text in enumerate(texts, 1):
        which = f"text {place} of {len(texts)}"
        if not text.strip():
            raise typer.BadParameter(f"{which} is empty; expected a text to answer")
        if any("\udc80" <= character <= "\udcff" for character in text):  # a byte that is not UTF-8
            raise typer.BadParameter(f"{which} is not UTF-8; give texts in a file with --input")


def _stdin_lines() -> list[str]:
    from softhub.tasks.file_detection import TextFile

    file = TextFile.open(Path("stdin"), sys.stdin.buffer.read())
    return [line.rstrip("\r\n") for _, line in file.lines() if line.strip()]


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
