"""`softhub init-task`: draft a task file from data, and check the data before training on it."""

import os
import shlex
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softhub.cli.options import JsonOption, option
from softhub.cli.output import emit, emit_json, emit_table
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
Seed = Annotated[int, typer.Option(help="Seed of the split.")]
Text = Annotated[list[str] | None, option("Column of texts; may be repeated.", "COLUMN")]
Label = Annotated[str | None, option("Column of labels, for classification.", "COLUMN")]
Target = Annotated[str | None, option("Column of reference texts, for generation.", "COLUMN")]
Group = Annotated[str | None, option("Column that identifies rows that belong together.", "COLUMN")]
Kind = Annotated[str | None, option("classification, multilabel or generation.", "KIND")]
Name = Annotated[str | None, option("Name of the task. [default: the data's]", "NAME")]
MaxLength = Annotated[int | None, option("Tokens at which a text is truncated.", "N", min=1)]
Base = Annotated[
    str | None,
    option(
        "Base model whose tokens are counted; without one, words.", "REF", envvar="SOFTHUB_BASE"
    ),
]
Subset = Annotated[str | None, option("Subset (configuration) of a Hub dataset.", "NAME")]
Revision = Annotated[str | None, option("Commit, tag or branch of a Hub dataset.", "REV")]
Force = Annotated[bool, typer.Option("--force", help="Replace existing files.")]


def init_task(
    source: Source,
    *,
    output: Output = Path("task.yaml"),
    dev: Dev = None,
    test: Test = None,
    split: Split = False,
    seed: Seed = 0,
    text: Text = None,
    label: Label = None,
    target: Target = None,
    group: Group = None,
    kind: Kind = None,
    name: Name = None,
    max_length: MaxLength = None,
    base: Base = None,
    subset: Subset = None,
    revision: Revision = None,
    force: Force = False,
    as_json: JsonOption = False,
) -> None:
    """Draft a task file from data, and check the data.

    Columns, labels, template, label words and metrics are guessed; the file gives the reasons, and
    options override the guesses. Warnings report duplicates, rare labels, texts that reveal the
    label, and texts that are too long.
    """
    from softhub.tasks.drafting import Choices, draft_task, find_source

    draft = draft_task(
        find_source(source, dev=dev, test=test, subset=subset, revision=revision),
        output,
        choices=Choices(tuple(text or ()), label, target, group, kind),
        name=name,
        max_length=max_length,
        counter=_token_counter(base) if base else None,
        split=split,
        seed=seed,
    )
    written = draft.write(force=force)
    if as_json:
        emit_json(_record(draft, written))
        return
    _show(draft, written)
    chosen: dict[str, Any] = {"--label": label, "--target": target, "--group": group}
    chosen |= {"--kind": kind, "--name": name, "--max-length": max_length, "--base": base}
    chosen |= {"--subset": subset, "--revision": revision, "--seed": seed or None}
    options = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    note(
        _next_step(draft, source, [*options, *(f"--text={column}" for column in text or ())], base)
    )


def _token_counter(base: str) -> "LengthCounter":
    from softhub.model.token_lengths import TokenCounter

    return TokenCounter.from_pretrained(base)


def _record(draft: "Draft", written: list[Path]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "written": [str(path) for path in written],
        "task": draft.task.to_record(),
        "guesses": {
            key: {"value": value, "why": why} for key, (value, why) in draft.reasons.items()
        },
        "rows": dict(draft.sizes),
        "lengths": asdict(draft.lengths),
        "examples": [asdict(sample) for sample in draft.samples],
        "warnings": [asdict(warning) for warning in draft.warnings],
    }


def _show(draft: "Draft", written: list[Path]) -> None:
    reasons = [(key, value, why) for key, (value, why) in draft.reasons.items()]
    emit_table(("key", "value", "why"), reasons)
    lengths = draft.lengths
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
        say(f"warning: {warning.text}")
    for path in written:
        emit(f"Wrote {path}")


def _next_step(draft: "Draft", source: str, options: list[str], base: str | None) -> str:
    """Return what to do next: train, or first make the test split that training needs."""
    if draft.has_test:
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
