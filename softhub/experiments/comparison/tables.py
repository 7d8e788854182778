"""The table of a comparison: for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from softhub.experiments.comparison.summary import Line, Summary
from softhub.experiments.comparison.wording import (
    DASH,
    count,
    duration,
    metric_name,
    milliseconds,
    percent,
    plain,
    points,
    size,
)
from softhub.metrics.intervals import Interval

COSTS = ("trainable\nparameters", "bytes", "prompt\ntokens", "time to\ntrain", "ms per\nexample")


def print_table(summary: Summary, *, title: str = "") -> None:
    """Print scores and costs to stdout, in 100 columns."""
    scores = _table("", "seeds", f"{metric_name(summary.metric)}, %", *_to_what(summary))
    prices = _table("", *COSTS)
    for line in summary.table:
        scores.add_row(Text(line.name), str(line.seeds), *map(plain, _scores(line, summary)))
        prices.add_row(Text(line.name), *map(plain, costs(line)))
    console = Console(highlight=False, width=100)
    if title:
        console.print(f"\n{title}", markup=False, soft_wrap=True)
    for table in (scores, prices):
        console.print()
        console.print(table)
    console.print(f"\n{plain(_note(summary))}", markup=False)


def markdown_table(summary: Summary) -> str:
    """The table as Markdown, with a note on the intervals below it."""
    headings = ["", "seeds", f"{metric_name(summary.metric)}, %", *_to_what(summary), *COSTS]
    lines = [_markdown(headings), _markdown(["---", *["---:"] * (len(headings) - 1)])]
    for line in summary.table:
        cells = [one_line(line.name), str(line.seeds), *_scores(line, summary), *costs(line)]
        bold = line is summary.soft_prompt
        lines.append(_markdown([f"**{cells[0]}**" if bold else cells[0], *cells[1:]]))
    return "\n".join([*lines, "", _note(summary), ""])


def other_scores(summary: Summary) -> list[tuple[str, list[str]]]:
    """Scores by the metrics beside the main one, in the order of `summary.table`."""
    others = list(summary.table[0].scores)[1:]
    return [
        (metric_name(name), [percent(line.scores[name]) for line in summary.table])
        for name in others
    ]


def difference(interval: Interval | None) -> str:
    """A difference in points, or a dash."""
    return DASH if interval is None else points(interval)


def _to_what(summary: Summary) -> list[str]:
    return [f"minus\n{line.name}" for line in summary.anchors]


def _scores(line: Line, summary: Summary) -> list[str]:
    return [percent(summary.score(line)), *map(difference, summary.differences(line))]


def costs(line: Line) -> list[str]:
    """What a line costs, as `COSTS` names it."""
    return [
        count(line.trainable_parameters) if line.trainable_parameters else DASH,
        size(line.bytes) if line.bytes else DASH,
        str(line.prompt_tokens),
        duration(line.train_seconds) if line.train_seconds else DASH,
        milliseconds(line.predict_seconds) if line.predict_seconds else DASH,
    ]


def _note(summary: Summary) -> str:
    drawn = "groups of test examples" if summary.groups else "test examples"
    return (
        f"In brackets: 95 % interval, bootstrap over {drawn} and seeds. Differences, in points, "
        "are paired over the same examples. Bytes: what is stored and shipped beside the base."
    )


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for position, heading in enumerate(headings):
        if position:
            table.add_column(heading, justify="right", no_wrap=True)
        else:
            table.add_column(heading, max_width=34, overflow="fold")
    return table


def _markdown(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace(chr(10), ' ') for cell in cells)} |"


def one_line(text: str) -> str:
    """A name from a file, which may hold anything, as Markdown that shows it and no more."""
    words = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\|*_`[]<>" else c for c in words)
