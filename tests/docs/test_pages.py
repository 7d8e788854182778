"""What the pages of docs/ name is there, and their figures are those of the benchmarks."""

import importlib
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from softhub.tasks.dataset import DatasetSource
from softhub.tasks.decision import Decision
from softhub.tasks.task import GENERATION_OPTIONS, Task

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
FETCHED = ("recipes/data/files/",)  # what scripts fetch is not in a checkout


def named(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    pattern = r"(?:recipes|docs|tests|benchmarks|softhub)/[\w./-]*\w\.(?:py|yaml|md|json)\b"
    files = {file for file in re.findall(rf"(?<![\w/.-]){pattern}", text)}
    files = {file for file in files if not file.startswith(FETCHED)}
    missing = [f for f in files if not (ROOT / f).exists() and not (page.parent / f).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_that_a_page_shows_exist(page):
    from typer.main import get_command

    from softhub.cli.app import app

    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    used = {line.split()[1] for line in lines if line.startswith("softhub ")}
    assert {verb for verb in used if not verb.startswith("-")} <= set(get_command(app).commands)
    doors = {line.split()[1] for line in lines if line.startswith("make ")}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{door}:" in makefile for door in doors)


def test_the_page_of_task_files_has_every_key():
    text = (ROOT / "docs" / "task-files.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE)
    shown = {key for line in lines for key in re.findall(r"`(\w+)`", line)}
    known = {field.name for kind in (Task, DatasetSource) for field in fields(kind)}
    assert shown == known | {"labels"}
    assert all(f"`{field.name}`" in text for field in fields(Decision))
    assert all(f"`{option}`" in text for option in GENERATION_OPTIONS)


def read_page(name):
    """A page of docs/, with hyphens in place of en dashes and minus signs."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    return text.replace("\u2013", "-").replace("\u2212", "-")


def shown_score(score):
    value, low, high = (100 * score[key] for key in ("value", "low", "high"))
    return f"{value:.1f} % ({low:.1f}-{high:.1f})"


def test_the_figures_of_concepts_are_measured():
    """Where softhub's figures change, this page changes with them."""
    page = read_page("concepts.md")
    file = ROOT / "benchmarks/results/compare-sentiment/report.json"
    report = json.loads(file.read_text(encoding="utf-8"))
    lines = {(line["method"], line["setting"]): line for line in report["lines"]}
    hard, prompt = lines["zero-shot", ""], lines["soft prompt", "P = 20"]
    tuned = lines["full fine-tuning", ""]
    for line in (hard, prompt, tuned):
        assert shown_score(line["scores"]["accuracy"]) in page
    difference = [f"{100 * number:+.1f}" for number in tuned["minus_soft_prompt"].values()]
    assert "difference is {} ({} to {}) for full fine-tuning".format(*difference) in page
    assert f"accuracy on {report['test_examples']:,} sentences, three seeds" in page
    assert len(prompt["seeds"]) == len(tuned["seeds"]) == 3
    for number in ("trainable_parameters", "bytes"):
        assert f"| {prompt[number]:,}" in page
        assert f"| {tuned[number]:,}" in page
    assert f"one base and {100 * prompt['bytes'] / 1e6:.1f} MB" in page
    assert f"| {100 * tuned['bytes'] / 1e9:.1f} GB" in page


def test_the_figures_of_the_earlier_study_are_measured():
    page = read_page("results-details.md")
    results = json.loads((ROOT / "benchmarks/results/sentiment.json").read_text(encoding="utf-8"))
    for method in ("majority label", "hard prompt", "soft prompt", "full fine-tuning"):
        value, low, high = (100 * number for number in results["accuracy"][method])
        assert f"{value:.1f} ({low:.1f}-{high:.1f})" in page
    gain = [f"{100 * number:.1f}" for number in results["full fine-tuning minus soft prompt"]]
    assert "full fine-tuning minus soft prompt: +{} point ({} to {})".format(*gain) in page
    assert f"test split of {results['test_sentences']:,} sentences" in page
    (tuned,) = [row for row in results["rows"] if row["method"] == "full fine-tuning"]
    prompts = [row for row in results["rows"] if row["method"] == "soft prompt"]
    assert len(prompts) == 3
    for number in ("trained_numbers", "bytes"):
        assert f"| {prompts[0][number]:,}" in page
        assert f"| {tuned[number]:,}" in page
    assert f"one base and {100 * prompts[0]['bytes'] / 1e6:.1f} MB" in page
    assert f"| {100 * tuned['bytes'] / 1e9:.1f} GB" in page
    minutes = sum(row["train_seconds"] for row in prompts) / len(prompts) / 60
    assert f"steps of 8, {minutes:.0f} minutes |" in page
    assert f"steps of 8, {tuned['train_seconds'] / 60:.0f} minutes |" in page


def test_the_summary_of_the_results_is_that_of_their_tables():
    """Each row has the bytes of its first score, and the scores of the tables below it."""
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")

    def rows(text):
        lines = [line.strip("|") for line in text.splitlines() if line.startswith("| ")]
        cells = [[cell.strip() for cell in line.split("|")] for line in lines[1:]]
        return {
            re.sub(r"\*\*|best given hard prompt \((.*)\)", r"\1", row[0]): row for row in cells
        }

    def between(begin, end):
        return page.split(begin, 1)[1].split(end, 1)[0]

    names = ("sentiment", "medical", "attack")
    end = "<!-- end of comparison -->"
    tables = [rows(between(f"<!-- comparison: {name} -->", end)) for name in names]
    summary = rows(between("## Summary", "## How to read this"))
    assert len(summary) >= 10
    for name, row in summary.items():
        found = [table.get(name) for table in tables]
        assert row[2:] == [line[3] if line else "" for line in found], name
        assert row[1] == next(line[1] for line in found if line), name


def test_the_other_differences_that_concepts_quotes_are_those_of_the_results():
    concepts, results = (
        (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("concepts.md", "results.md")
    )
    quoted = re.findall(r"[+\u2212]\d+\.\d \([+\u2212]\d+\.\d to [+\u2212]\d+\.\d\)", concepts)
    assert len(quoted) == 4
    assert all(difference in results for difference in quoted)


@pytest.mark.parametrize("name", ["sentiment", "medical", "attack"])
def test_the_tables_of_comparisons_are_those_of_the_committed_rows(name, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    comparisons = importlib.import_module("comparisons")
    pages = {key: getattr(comparisons, key) for key in ("PAGE", "PREFIX_PAGE")}
    for key, page in pages.items():
        copy = tmp_path / page.name
        copy.write_bytes((ROOT / page).read_bytes())
        monkeypatch.setattr(comparisons, key, copy)
    comparisons.write_tables(name)
    for key, page in pages.items():
        assert getattr(comparisons, key).read_bytes() == (ROOT / page).read_bytes()
    results, prefixes = (getattr(comparisons, key).read_text(encoding="utf-8") for key in pages)
    assert f"<!-- comparison: {name} -->\n\n| | bytes | seeds |" in results
    assert "<!-- comparison: trained -->\n\n| | bytes | sentiment, accuracy" in prefixes
