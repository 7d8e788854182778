"""The table of a comparison: for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

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
        console.print(table)
    console.print(f"\n{plain(_note(summary))}", markup=False)


def markdown_table(summary: Summary) -> str:
    """Return the table as Markdown, with a note on the intervals below it."""
    headings = [*score_headings(summary), *COSTS]
    lines = [_markdown(headings), _markdown(["---", *["---:"] * (len(headings) - 1)])]
    for line in summary.table:
        name = escape_markdown(line.name)
        name = f"**{name}**" if line is summary.soft_prompt else name
        lines.append(_markdown([name, *score_cells(line, summary), *cost_cells(line)]))
    return "\n".join([*lines, "", _note(summary), ""])


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
    return [
        count(line.trainable_parameters) if line.trainable_parameters else DASH,
        decimal(line.bytes) if line.bytes else DASH,
        str(line.prompt_tokens),
        duration(line.train_seconds) if line.train_seconds else DASH,
        milliseconds(line.predict_seconds) if line.predict_seconds else DASH,
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


def _markdown(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace(chr(10), ' ') for cell in cells)} |"


def escape_markdown(text: str) -> str:
    """Return a name, which may contain anything, as Markdown that shows it on one line."""
    words = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\|*_`[]<>" else c for c in words)
