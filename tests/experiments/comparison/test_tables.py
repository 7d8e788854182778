"""The table on a terminal and as Markdown."""

from dataclasses import replace

import pytest

from softhub.experiments.comparison.summary import summarize
from softhub.experiments.comparison.tables import markdown_table, print_table
from tests.experiments.comparison.rows import GROUPS, REFERENCES, rows


@pytest.fixture(scope="module")
def summary():
    return summarize(rows(), REFERENCES, GROUPS)


def test_the_terminal_gets_every_figure_in_100_columns(summary, capsys):
    print_table(summary, title="mood on example/tiny")
    found = capsys.readouterr()
    lines = found.out.splitlines()
    assert found.err == "" and found.out.isascii()
    assert max(map(len, lines)) <= 100
    assert lines[1] == "mood on example/tiny"
    scores, costs = (line for line in lines if line.startswith("soft prompt, P = 20"))
    score = summary.score(summary.soft_prompt)
    assert f"{100 * score.value:.1f} ({100 * score.low:.1f}-{100 * score.high:.1f})" in scores
    assert scores.split()[5] == "3"
    assert costs.split()[5:] == ["640", "55.0", "kB", "20", "22", "s", "50"]
    costs = [line for line in lines if line.startswith("full fine-tuning")][1]
    assert costs.split()[2:] == ["1.0", "M", "4.0", "MB", "0", "2.2", "min", "60"]


def test_long_names_do_not_widen_the_table(summary, capsys):
    long = [replace(row, setting=f"{row.setting}{' and much more' * 9}") for row in rows()]
    print_table(summarize(long, REFERENCES, GROUPS))
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


def test_markdown_is_one_line_for_each_method_with_the_default_in_bold(summary):
    lines = markdown_table(summary).splitlines()
    body = [line for line in lines if line.startswith("| ")][2:]
    assert len(body) == len(summary.table)
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert [line for line in body if "**" in line] == [
        line for line in body if line.startswith("| **soft prompt, P = 20** | 3 |")
    ]
    assert "bootstrap over groups of test examples and seeds" in lines[-1]


def test_names_cannot_break_out_of_markdown():
    hostile = [replace(row, setting="a|b\n\n# <img src=x> [x](y) `z`") for row in rows()[:1]]
    table = markdown_table(summarize(hostile, REFERENCES, GROUPS))
    assert r"a\|b # \<img src=x\> \[x\](y) \`z\`" in table
