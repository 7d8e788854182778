"""Run the rows of the committed comparisons, and write their tables and plots.

    python benchmarks/comparisons.py                     # run missing rows: takes hours
    python benchmarks/comparisons.py sentiment --seeds 0 # pass further flags to recipes/compare.py
    python benchmarks/comparisons.py --anew              # run all rows: after a change of defaults
    python benchmarks/comparisons.py --tables            # run nothing, write from existing rows

The rows are in benchmarks/results/compare-<name>, and the files of the runs in
runs/compare-<name>. Rows with another number of steps are in benchmarks/results/compare-<name>-*;
differences.json has the differences of all pairs of rows, with them. The tables are written to
docs/results.md and docs/prefixes.md between their markers, and the plots to docs/images. The
ensemble needs prompts that are only in runs/; --anew trains them if necessary.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from record import RESULTS
from rich.filesize import decimal

from softhub.experiments.comparison.formatting import DASH, difference, score
from softhub.experiments.comparison.results import (
    CONTEXT,
    FIGURES,
    OVERVIEW,
    STORAGE,
    read_results,
    write_results,
)
from softhub.experiments.comparison.store import ABOUT, RATES, ROWS, RowStore
from softhub.experiments.comparison.summary import summarize

NAMES = ("sentiment", "medical", "attack", "translation", "summarization", "code")
KEPT = (ROWS, ABOUT, CONTEXT, RATES)
PAGE, IMAGES = Path("docs/results.md"), Path("docs/images")
PREFIX_PAGE = Path("docs/prefixes.md")
DIFFERENCES = "differences.json"
END = "<!-- end of comparison -->"


def run(name, folder, flags):
    """Run the rows that a folder lacks."""
    config = f"recipes/configs/compare_{name}.yaml"
    command = [sys.executable, "recipes/compare.py", "--config", config]
    subprocess.run([*command, "--output_dir", str(folder), *flags], check=True)


def take_committed(name, folder):
    """Copy the committed rows, which are then not run again."""
    committed = RESULTS / f"compare-{name}"
    if committed.is_dir() and not (folder / ROWS).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        copy_files(committed, folder, KEPT)


def copy_files(source, target, names):
    """Copy those of the files that are there: there may have been no search for learning rates."""
    for name in names:
        if (source / name).is_file():
            shutil.copy(source / name, target / name)


def keys(folder):
    """Return the keys of the rows in a folder."""
    return {row.key for row in RowStore(folder).rows()}


def publish(name, folder, *, anew=False):
    """Copy figures, plot and table of a folder's rows to the committed files."""
    committed = RESULTS / f"compare-{name}"
    lost = keys(committed) - keys(folder)
    if lost and not anew:
        sys.exit(
            f"{folder} lacks rows that {committed} has ({', '.join(sorted(map(str, lost)))}): "
            "delete the folder or run them; with --anew they are dropped."
        )
    write_results(folder)
    committed.mkdir(exist_ok=True)
    copy_files(folder, committed, (*KEPT, FIGURES))
    shutil.copy(folder / OVERVIEW, IMAGES / f"{name}.svg")
    shutil.copy(folder / STORAGE, IMAGES / f"{name}-storage.svg")
    lines = ",\n".join(map(json.dumps, differences(committed)))
    (committed / DIFFERENCES).write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    write_tables(name)


def differences(committed):
    """Yield the difference of each pair of lines of a comparison, paired over the test texts."""
    context = json.loads((committed / CONTEXT).read_text(encoding="utf-8"))
    rows = RowStore(committed).rows()
    for other in sorted(committed.parent.glob(f"{committed.name}-*")):
        kind = other.name.removeprefix(f"{committed.name}-")  # "auto", or a number of steps
        rows += [replace(row, setting=f"{row.setting}, {kind}") for row in RowStore(other).rows()]
    summary = summarize(rows, context["references"], context["groups"])
    for line, other in combinations(summary.table, 2):  # a later line minus an earlier one
        found = summary.difference(other, line)._asdict()
        figures = {figure: round(value, 5) for figure, value in found.items()}
        yield {"metric": summary.metric, "of": other.name, "minus": line.name, **figures}


def table(summary):
    """Yield the lines of the table: methods with seeds, scores and differences, as Markdown."""
    yield f"| | bytes | seeds | {summary.heading} | minus soft prompt |"
    yield "|---|---|---|---|---|"
    for line in summary.table:
        name = escape_markdown(line.name)
        name = f"**{name}**" if line is summary.soft_prompt else name
        seeds = len([row for row in line.rows if row.seed is not None]) or DASH
        size = round(line.mean("bytes"))
        minus = summary.difference(line, summary.soft_prompt)
        to = difference(minus, summary.metric) if minus else ""
        cells = (name, decimal(size) if size else DASH, seeds, shown(summary, line), to)
        yield f"| {' | '.join(map(str, cells))} |"


def shown(summary, line):
    """A line's main score with its interval."""
    return score(summary.score(line), summary.metric)


def escape_markdown(text):
    """A name, which may contain anything, as Markdown that shows it on one line."""
    return "".join(f"\\{c}" if c in "\\|*_`[]<>" else c for c in " ".join(text.split()))


def trained_table(summaries):
    """Yield the lines of a table of what is trained: bytes, and the score on each task."""
    yield f"| | bytes | {' | '.join(f'{n}, {s.heading}' for n, s in summaries.items())} |"
    yield f"|---|---|{'---|' * len(summaries)}"
    lines = [
        {line.name: line for line in s.table if line.rows[0].steps} for s in summaries.values()
    ]
    for name in dict.fromkeys(name for found in lines for name in found):
        own = [found.get(name) for found in lines]
        scores = [
            score(summary.score(line), summary.metric) if line else ""
            for summary, line in zip(summaries.values(), own, strict=True)
        ]
        size = next(round(line.mean("bytes")) for line in own if line)
        yield f"| {' | '.join([escape_markdown(name), decimal(size), *scores])} |"


def write_tables(name):
    """Write the table of a comparison, and the one of what is trained, between their markers."""
    folders = {other: RESULTS / f"compare-{other}" for other in NAMES}
    summaries = {n: read_results(f).summary for n, f in folders.items() if f.is_dir()}
    write_between(PAGE, f"comparison: {name}", table(summaries[name]))
    write_between(PREFIX_PAGE, "comparison: trained", trained_table(summaries))


def write_between(page, marker, lines):
    """Write lines between the markers of a page, if it has any."""
    begin, text = f"<!-- {marker} -->", page.read_text(encoding="utf-8")
    if begin not in text:
        print(f"{page} has no marker {begin}: the table is only in {RESULTS}", file=sys.stderr)
        return
    before, rest = text.split(begin, 1)
    after = rest.split(END, 1)[1]
    written = "\n".join(lines)
    page.write_text(f"{before}{begin}\n\n{written}\n\n{END}{after}", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    there = [name for name in NAMES if (RESULTS / f"compare-{name}").is_dir()]
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(NAMES)}; flags after it are passed to the recipe",
    )
    parser.add_argument(
        "--anew", action="store_true", help="run all rows, including the committed ones"
    )
    parser.add_argument(
        "--tables", action="store_true", help="run nothing, only write tables and plots"
    )
    options, flags = parser.parse_known_args()
    if unknown := {*options.names} - {*NAMES}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; expected {', '.join(NAMES)}")
    for name in options.names or there:
        if options.tables:
            with tempfile.TemporaryDirectory() as folder:
                take_committed(name, Path(folder))
                publish(name, Path(folder))
            continue
        folder = Path("runs") / f"compare-{name}"
        if options.anew:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            take_committed(name, folder)
        run(name, folder, flags)
        publish(name, folder, anew=options.anew)


if __name__ == "__main__":
    main()
