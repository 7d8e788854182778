"""`softhub init-task`: a task file from data, and what to know before training on it."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softhub.cli.options import JsonOption
from softhub.cli.output import (
    emit,
    emit_json,
    emit_table,
    one_line,
    printable,
    quiet_libraries,
    say,
)

if TYPE_CHECKING:
    from softhub.tasks.drafting import Draft

_SHOWN_TEXT = 600


def init_task(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A csv, jsonl, json or parquet file, or the id of a dataset on the Hub.",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The task file to write.")
    ] = Path("task.yaml"),
    dev: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A second file, to choose by.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another file, to judge by.")
    ] = None,
    split: Annotated[
        bool,
        typer.Option(
            "--split",
            help="Divide one table 80:10:10 into train, dev and test.jsonl beside the task file: "
            "whole groups, no text on two sides.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Chooses the division.")] = 0,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column of texts; repeat it for several."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of labels: classification.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of reference texts: generation.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column that says which rows belong together."),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="classification or generation.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the task. [default: the data's]")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Tokens at which a text is cut.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="REF", help="Base model whose tokenizer counts; without it, words are counted."
        ),
    ] = None,
    subset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Subset (configuration) of a Hub dataset.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Commit, tag or branch of a Hub dataset.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Draft a task file from data, and say what to know of the data.

    Columns, labels, template, words and metrics are guessed; the file says why. Options overrule
    the guesses. Warnings tell of duplicates, rare labels, leaks, and texts that are too long.
    """
    quiet_libraries()
    from softhub.tasks.drafting import Choices, draft_task, find_source

    draft = draft_task(
        find_source(source, dev=dev, test=test, subset=subset, revision=revision),
        output,
        choices=Choices(tuple(text or ()), label, target, group, kind),
        name=name,
        max_length=max_length,
        ruler=_token_ruler(base) if base else None,
        split=split,
        seed=seed,
    )
    written = draft.write(force=force)
    if as_json:
        emit_json(_record(draft, written))
        return
    _show(draft)
    for finding in draft.findings:
        say(f"warning: {finding.text}")
    for path in written:
        emit(f"Wrote {path}")
    recipe = [] if draft.task.kind == "classification" else ["--recipe", draft.task.kind]
    command = ["softhub", "train", *recipe, "--task", str(output), "--base_model", base or "MODEL"]
    run = shlex.join([*command, "--output_dir", f"runs/{draft.task.name}"])
    say(f"next: read {output}, then: {run}")


def _token_ruler(base: str) -> Any:
    from softhub.model.token_lengths import TokenRuler

    return TokenRuler.from_pretrained(base)


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
        "findings": [asdict(finding) for finding in draft.findings],
    }


def _show(draft: "Draft") -> None:
    emit_table(
        ("key", "value", "why"), [(key, value, why) for key, (value, why) in draft.reasons.items()]
    )
    lengths = draft.lengths
    sizes = ", ".join(f"{split} {size}" for split, size in draft.sizes.items())
    emit(f"\nRows: {sizes}")
    emit(
        f"Lengths in {lengths.unit}: median {lengths.median}, 95 % up to {lengths.most}, "
        f"longest {lengths.longest}"
    )
    for number, sample in enumerate(draft.samples, start=1):
        shown = _tail(printable(sample.text)) + f"[{_answer(sample.answer)}]"
        emit(f"\nExample {number} ({sample.length} {lengths.unit}; in brackets what comes behind):")
        emit("\n".join(f"  {line}" for line in shown.split("\n")))
    emit("")


def _tail(text: str) -> str:
    return text if len(text) <= _SHOWN_TEXT else f"…{text[-_SHOWN_TEXT:]}"


def _answer(answer: str) -> str:
    """An answer on one line, with the space that it may begin with."""
    shown = one_line(answer)
    cut = f"{shown[:_SHOWN_TEXT]}…" if len(shown) > _SHOWN_TEXT else shown
    return f" {cut}" if answer.startswith(" ") else cut
