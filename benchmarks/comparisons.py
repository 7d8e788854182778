"""The committed comparisons: run their rows, and write tables and pictures of them.

    python benchmarks/comparisons.py                     # rows that are missing are run: hours
    python benchmarks/comparisons.py sentiment --seeds 0 # what follows goes to recipes/compare.py
    python benchmarks/comparisons.py --anew              # all rows, as after a change of defaults
    python benchmarks/comparisons.py --tables            # run nothing, write from the rows there

Rows come from and go to benchmarks/results/compare-<name>; what runs leave is in
runs/compare-<name>. docs/results.md gets the table between its marks, docs/images the picture.
The ensemble is of prompts that are in runs only: --anew trains them where they are not.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from record import RESULTS

from softhub.experiments.comparison.formatting import DASH, difference, score
from softhub.experiments.comparison.results import (
    CONTEXT,
    FIGURES,
    OVERVIEW,
    read_results,
    write_results,
)
from softhub.experiments.comparison.store import ABOUT, ROWS, RowStore

NAMES = ("sentiment", "medical", "translation", "summarization", "code")
KEPT = (ROWS, ABOUT, CONTEXT)
PAGE, IMAGES = Path("docs/results.md"), Path("docs/images")


def run(name, folder, flags):
    """Run the rows that are missing in a folder."""
    config = f"recipes/configs/compare_{name}.yaml"
    command = [sys.executable, "recipes/compare.py", "--config", config]
    subprocess.run([*command, "--output_dir", str(folder), *flags], check=True)


def take_committed(name, folder):
    """Begin with the committed rows, which are not run again."""
    committed = RESULTS / f"compare-{name}"
    if committed.is_dir() and not (folder / ROWS).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for file in KEPT:
            shutil.copy(committed / file, folder / file)


def keys(folder):
    """What identifies the rows of a folder."""
    return {row.key for row in RowStore(folder).rows()}


def publish(name, folder, *, anew=False):
    """Write figures, picture and table of a folder's rows to where they are committed."""
    committed = RESULTS / f"compare-{name}"
    lost = keys(committed) - keys(folder)
    if lost and not anew:
        sys.exit(
            f"{folder} lacks rows that {committed} has ({', '.join(sorted(map(str, lost)))}): "
            "delete that folder, or run them; --anew leaves them out."
        )
    write_results(folder)
    committed.mkdir(exist_ok=True)
    for file in (*KEPT, FIGURES):
        shutil.copy(folder / file, committed / file)
    shutil.copy(folder / OVERVIEW, IMAGES / f"{name}.svg")
    write_table(name)


def table(summary):
    """The lines of a comparison with their seeds, scores and differences, as Markdown."""
    yield f"| | seeds | {summary.heading} | minus soft prompt |"
    yield "|---|---|---|---|"
    for line in summary.table:
        name = escape_markdown(line.name)
        name = f"**{name}**" if line is summary.soft_prompt else name
        seeds = len([row for row in line.rows if row.seed is not None]) or DASH
        minus = summary.difference(line, summary.soft_prompt)
        to = difference(minus, summary.metric) if minus else ""
        yield f"| {name} | {seeds} | {score(summary.score(line), summary.metric)} | {to} |"


def escape_markdown(text):
    """A name, which may contain anything, as Markdown that shows it on one line."""
    return "".join(f"\\{c}" if c in "\\|*_`[]<>" else c for c in " ".join(text.split()))


def write_table(name):
    """Put a comparison's table between its marks in the page of results, if it has some."""
    begin, end = f"<!-- comparison: {name} -->", "<!-- end of comparison -->"
    page = PAGE.read_text(encoding="utf-8")
    if begin not in page:
        print(f"{PAGE} has no {begin}: its table is only in {RESULTS}", file=sys.stderr)
        return
    before, rest = page.split(begin, 1)
    after = rest.split(end, 1)[1]
    lines = "\n".join(table(read_results(RESULTS / f"compare-{name}").summary))
    PAGE.write_text(f"{before}{begin}\n\n{lines}\n\n{end}{after}", encoding="utf-8")


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
        help=f"of {', '.join(NAMES)}; flags of the recipe go behind one",
    )
    parser.add_argument("--anew", action="store_true", help="run all rows, the committed ones too")
    parser.add_argument("--tables", action="store_true", help="run nothing")
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
