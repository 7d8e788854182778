"""The figures of docs/distillation.md are those of the benchmark."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_says_what_was_measured():
    page = (ROOT / "docs" / "distillation.md").read_text(encoding="utf-8")
    page = page.replace("\u2013", "-").replace("\u2212", "-").replace("**", "")
    results = json.loads((ROOT / "benchmarks/results/distillation.json").read_text("utf-8"))
    runs = results["runs"]
    lines = [
        row(name, [scores(run, key) for run in runs])
        for name, key in (("short template", "short"), ("student", "student"))
    ]
    lines.append(row("teacher, bias-corrected", [scores(run, "teacher") for run in runs]))
    alone = [shown(run["short template, calibrated"]["accuracy"]) for run in runs]
    lines.append(row("short template, bias-corrected", alone))
    shares = [shown(run["share"]["accuracy"]) for run in runs]
    lines.append(row("student's share of the teacher's score", shares))
    lines.append(row("agreement with the teacher", [f"{100 * r['agreement']:.1f}" for r in runs]))
    tokens = [f"{r['tokens']['teacher']} \u2192 {r['tokens']['student']}" for r in runs]
    lines.append(row("tokens in addition to the text, teacher \u2192 student", tokens))
    differences = [signed(run["difference"]["accuracy"]) for run in runs]
    lines.append(row("student minus teacher, paired", differences))
    assert [line for line in lines if line not in page] == []
    assert {(run["steps"], *run["texts"].values()) for run in runs} == {(60, 300, 64, 200)}


def row(name, cells):
    return f"| {' | '.join([name, *cells])} |"


def scores(run, key):
    return shown(run["scores"][key]["accuracy"])


def shown(interval):
    value, low, high = (100 * interval[key] for key in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f}-{high:.1f})"


def signed(interval):
    value, low, high = (100 * interval[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
