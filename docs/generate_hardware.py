"""Write the table of docs/hardware.md, and the README's sentence, from benchmarks/results.

python docs/generate_hardware.py [--check]
"""

import json
from pathlib import Path

from marked_pages import update

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "docs" / "hardware.md", ROOT / "README.md")
NOT_RUN = "**not run**"
PACKAGES = ("torch", "transformers", "peft", "accelerate")


def render(folder: Path) -> dict[str, str]:
    """Return the text between each pair of markers, from the results in a folder."""
    files = sorted(folder.glob("gpu_check-*.json"))
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    dry = [each for each in results if each["dry_run"]]
    gpus = [each for each in results if not each["dry_run"]]
    return {"gpu check": "\n".join(table(dry + gpus, gpus)), "hardware": sentence(gpus)}


def table(results: list[dict], gpus: list[dict]) -> list[str]:
    """Return the lines of the table: a row for each part, a column for each device."""
    names = list(dict.fromkeys(name for each in results for name in each["parts"]))
    heads = [*map(heading, results), *([] if gpus else ["a GPU"])]
    lines = [f"| part | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in names:
        cells = [cell(each["parts"].get(name), each["dry_run"]) for each in results]
        cells += [] if gpus else [NOT_RUN]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, "", *map(surroundings, results)]


def heading(result: dict) -> str:
    """Return the heading of a device's column."""
    what = "dry run with tiny models on a CPU" if result["dry_run"] else result["device"]
    return f"{what}, {result['date']}"


def cell(record: dict | None, dry: bool) -> str:
    """Return what a part found; the figures of a dry run say nothing, so only that it ran."""
    if record is None or "skipped" in record:
        reason = f": {record['skipped']}" if record else ""
        return f"{NOT_RUN}{reason}".replace("|", "\\|")
    if "error" in record:
        return f"failed: {record['error'].splitlines()[-1]}".replace("|", "\\|")
    if record["passed"] is False:
        return f"**failed**: {record['summary']}"
    return "ran" if dry else record["summary"]


def surroundings(result: dict) -> str:
    """Return a line with the versions and the processor of a result."""
    versions = ", ".join(f"{name} {result['packages'][name]}" for name in PACKAGES)
    gpu = f"CUDA {result['cuda']}, " if result["gpu"] else ""
    return f"- {heading(result)}: {gpu}{versions}, Python {result['python']}; {result['cpu']}."


def sentence(gpus: list[dict]) -> str:
    """Return the README's sentence on what was measured on GPUs."""
    if not gpus:
        return "All figures were measured on CPUs; softhub has **not run** yet on a GPU"
    devices = " and ".join(dict.fromkeys(each["device"] for each in gpus))
    parts = [part for each in gpus for part in each["parts"].values()]
    wrong = sum("error" in part or part.get("passed") is False for part in parts)
    return f"`make gpu-check` ran on {devices}" + (f" ({wrong} parts failed)" if wrong else "")


def main() -> None:
    """Write the pages, or check them."""
    update(PAGES, render(RESULTS), "docs/generate_hardware.py")


if __name__ == "__main__":
    main()
