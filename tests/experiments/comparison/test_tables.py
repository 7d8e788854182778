"""The table on a terminal."""

from dataclasses import replace

import pytest

from softhub.experiments.comparison.summary import summarize
from softhub.experiments.comparison.tables import print_table
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
