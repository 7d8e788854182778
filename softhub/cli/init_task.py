"""`softhub init-task`: draft a task file from data, and check the data before training on it."""

import os
import shlex
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softhub.cli.options import JsonOption, option
from softhub.cli.output import emit, emit_facts, emit_json
from softhub.experiments.console import note, one_line, printable, say

if TYPE_CHECKING:
    from softhub.tasks.drafting import Draft, LengthCounter

_SHOWN_TEXT = 600


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A csv, tsv, xlsx, json, jsonl, parquet or arrow file, a folder of such files or of "
        "save_to_disk, or the id of a dataset on the Hub.",
        show_default=False,
    ),
]
Output = Annotated[Path, option("The task file to write.", "FILE", "--output", "-o")]
Dev = Annotated[Path | None, option("A file with the dev split.", "FILE")]
Test = Annotated[Path | None, option("A file with the test split.", "FILE")]
Split = Annotated[
    bool,
    typer.Option(
        "--split",
        help="Split one table 80:10:10 into train, dev and test.jsonl next to the task file; "
        "groups are not divided, and no text is in two splits.",
    ),
]
Text = Annotated[list[str] | None, option("Column of texts; repeatable.", "COLUMN")]
Label = Annotated[str | None, option("Column of labels, for classification.", "COLUMN")]
Target = Annotated[str | None, option("Column of reference texts, for generation.", "COLUMN")]
Group = Annotated[str | None, option("Column that identifies rows that belong together.", "COLUMN")]
Multilabel = Annotated[
    bool, typer.Option("--multilabel", help="A row may have several labels, or none.")
]
Base = Annotated[
    str | None,
    option(
        "Base model whose tokenizer measures text lengths; without one, words are counted.",
        "REF",
        envvar="SOFTHUB_BASE",
    ),
]
Subset = Annotated[str | None, option("Subset (configuration) of a Hub dataset.", "NAME")]
Force = Annotated[bool, typer.Option("--force", help="Replace existing files.")]


def init_task(
    source: Source,
    *,
    output: Output = Path("task.yaml"),
    dev: Dev = None,
    test: Test = None,
    split: Split = False,
    text: Text = None,
    label: Label = None,
    target: Target = None,
    group: Group = None,
    multilabel: Multilabel = False,
    base: Base = None,
    subset: Subset = None,
    force: Force = False,
    as_json: JsonOption = False,
) -> None:
    """Draft a task file from data, and check the data.

    Columns, labels, template, label words and metrics are guessed. Options override the guesses of
    columns, and every line of the file can be changed. Warnings report duplicates, rare labels,
    texts that reveal the label, and texts that are too long.
    """
    from softhub.tasks.drafting import Choices, draft_task, find_source

    draft = draft_task(
        find_source(source, dev=dev, test=test, subset=subset),
        output,
        choices=Choices(tuple(text or ()), label, target, group, multilabel),
        counter=_token_counter(base) if base else None,
        split=split,
    )
    written = draft.write(force=force)
    if as_json:
        return emit_json(_record(draft, written))
    _show(draft, written)
    chosen = {"--label": label, "--target": target, "--group": group, "--subset": subset}
    options = [f"{key}={value}" for key, value in {**chosen, "--base": base}.items() if value]
    options += [*(f"--text={column}" for column in text or ()), *["--multilabel"] * multilabel]
    note(_next_step(draft, source, options, base))


def _token_counter(base: str) -> "LengthCounter":
    from softhub.model.token_lengths import TokenCounter

    return TokenCounter.from_pretrained(base)


def _record(draft: "Draft", written: list[Path]) -> dict[str, Any]:
    return {
        "written": [str(path) for path in written],
        "task": draft.task.to_record(),
        "rows": dict(draft.sizes),
        "warnings": list(draft.warnings),
    }


def _show(draft: "Draft", written: list[Path]) -> None:
    task, lengths = draft.task, draft.lengths
    emit_facts(
        [
            ("kind", f"{task.kind}{', multi-label' if task.multilabel else ''}"),
            ("texts", ", ".join(task.template.columns)),
            ("labels", task.label_column),
            ("reference texts", task.target_column),
            ("groups", task.group_column),
        ]
    )
    emit(f"\nRows: {', '.join(f'{split} {size}' for split, size in draft.sizes.items())}")
    emit(
        f"Length in {lengths.unit}: median {lengths.median}, 95 % up to {lengths.most}, "
        f"longest {lengths.longest}"
    )
    for number, sample in enumerate(draft.samples, start=1):
        text = printable(sample.text)
        text = text if len(text) <= _SHOWN_TEXT else f"…{text[-_SHOWN_TEXT:]}"
        emit(f"\nExample {number} ({sample.length} {lengths.unit}; the answer is in brackets):")
        emit("\n".join(f"  {line}" for line in f"{text}[{_answer(sample.answer)}]".split("\n")))
    emit("")
    for warning in draft.warnings:
        say(f"warning: {warning}")
    for path in written:
        emit(f"Wrote {path}")


def _next_step(draft: "Draft", source: str, options: list[str], base: str | None) -> str:
    """Return what to do next: train, or first make the test split that training needs."""
    if "test" in draft.sizes:
        recipe = [] if draft.task.kind == "classification" else ["--recipe", draft.task.kind]
        command = ["softhub", "train", *recipe, "--task", str(draft.path), "--base-model"]
        command += [base or os.environ.get("SOFTHUB_BASE") or "MODEL"]
        run = shlex.join([*command, "--output-dir", f"runs/{draft.task.name}"])
        return f"next: read {draft.path}, then run: {run}"
    if draft.undivided is not None:
        return (
            f"next: training needs test rows, and these cannot be divided ({draft.undivided}); add "
            f"rows, or a file with --test FILE, and run init-task again"
        )
    folder = draft.path.parent / draft.task.name
    free = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    folder = folder if not folder.exists() else next(path for path in free if not path.exists())
    output = ["-o", str(folder / draft.path.name)]
    run = shlex.join(["softhub", "init-task", source, "--split", *options, *output])
    return f"next: training needs test rows; divide these with: {run}"


def _answer(answer: str) -> str:
    """Return an answer on one line, with the space that it may begin with."""
    shown = one_line(answer)
    shown = f"{shown[:_SHOWN_TEXT]}…" if len(shown) > _SHOWN_TEXT else shown
    return f" {shown}" if answer.startswith(" ") else shown
