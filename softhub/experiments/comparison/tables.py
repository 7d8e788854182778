"""The table of a comparison on a terminal, and its cells for other formats."""

from __future__ import annotations

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from softhub.experiments.comparison.formatting import (
    DASH,
    count,
    difference,
    duration,
    milliseconds,
    plain,
    score,
)
from softhub.experiments.comparison.summary import Line, Summary
from softhub.terminal import print_whole

COSTS = ("trainable\nparameters", "bytes", "prompt\ntokens", "time to\ntrain", "ms per\nexample")


def print_table(summary: Summary, *, title: str = "") -> None:
    """Print scores and costs to stdout, in 100 columns."""
    scores, prices = _table(*score_headings(summary)), _table("", *COSTS)
    for line in summary.table:
        scores.add_row(Text(line.name), *map(plain, score_cells(line, summary)))
        prices.add_row(Text(line.name), *map(plain, cost_cells(line)))
    console = Console(highlight=False, width=100)
    if title:
        console.print(f"\n{title}", markup=False, soft_wrap=True)
    for table in (scores, prices):
        console.print()
        print_whole(table, width=100)
    console.print(f"\n{plain(_note(summary))}", markup=False)


def score_headings(summary: Summary) -> list[str]:
    """Return the headings of name, seeds, main score and differences."""
    minus = [f"minus\n{line.name}" for line in summary.anchors]
    return ["", "seeds", summary.heading, *minus]


def score_cells(line: Line, summary: Summary) -> list[str]:
    """Return a line's seeds, main score and differences."""
    metric = summary.metric
    minus = [difference(summary.difference(line, anchor), metric) for anchor in summary.anchors]
    return [str(line.seeds), score(summary.score(line), metric), *minus]


def cost_cells(line: Line) -> list[str]:
    """Return a line's costs, in the order of `COSTS`."""
    parameters, size = round(line.mean("trainable_parameters")), round(line.mean("bytes"))
    train, predict = line.mean("train_seconds"), line.mean("predict_seconds")
    return [
        count(parameters) if parameters else DASH,
        decimal(size) if size else DASH,
        f"{line.mean('prompt_tokens'):.0f}",
        duration(train) if train else DASH,
        milliseconds(predict) if predict else DASH,
    ]


def _note(summary: Summary) -> str:
    resampled = "groups of test examples" if summary.groups else "test examples"
    return (
        f"In parentheses: 95 % interval, bootstrap over {resampled} and seeds. Differences are "
        "paired over the same examples. Bytes: stored and shipped in addition to the base."
    )


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(headings[0], max_width=34, overflow="fold")
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
