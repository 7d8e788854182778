"""The summary: intervals against a direct computation, differences, and the order of the table."""

import json
from dataclasses import replace

import numpy as np
import pytest

from softhub.errors import DatasetError, TaskError
from softhub.experiments.comparison.html import missing_runs
from softhub.experiments.comparison.plots import storage
from softhub.experiments.comparison.store import ComparedRow
from softhub.experiments.comparison.summary import summarize
from softhub.metrics import compute
from softhub.metrics.intervals import bootstrap_interval
from tests.experiments.comparison.rows import (
    GROUPS,
    REFERENCES,
    SIZE,
    answers,
    row,
    rows,
    trained,
)


@pytest.fixture(scope="module")
def summary():
    return summarize(rows(), REFERENCES, GROUPS)


def line_of(summary, name):
    return next(line for line in summary.table if line.name == name)


def drawn_directly(runs_of_systems, metric, resamples=1500):
    """Bootstrap by hand, one resample at a time: scores `[systems, resamples]`."""
    rng = np.random.default_rng(99)
    names = sorted(set(GROUPS))
    members = {name: [i for i, group in enumerate(GROUPS) if group == name] for name in names}
    scores = np.zeros((len(runs_of_systems), resamples))
    for resample in range(resamples):
        index = [i for name in rng.choice(names, len(names)) for i in members[name]]
        references = [REFERENCES[i] for i in index]
        for system, runs in enumerate(runs_of_systems):
            chosen = rng.integers(0, len(runs), len(runs))
            scores[system, resample] = np.mean(
                [metric([runs[run][i] for i in index], references) for run in chosen]
            )
    return scores


def accuracy(predictions, references):
    return np.mean([a == b for a, b in zip(predictions, references, strict=True)])


def test_the_table_is_in_the_order_of_methods_and_lengths(summary):
    assert [line.name for line in summary.table] == [
        "majority label",
        "zero-shot",
        "optimized hard prompt",
        "4-shot",
        "8-shot",
        "soft prompt, P = 5",
        "soft prompt, P = 20",
        "prefix, P = 5",
        "IA3, rate searched",
        "full fine-tuning",
    ]
    assert [line.seeds for line in summary.table] == [1, 1, 3, 3, 3, 3, 3, 3, 3, 3]
    assert [row.seed for row in line_of(summary, "full fine-tuning").rows] == [0, 1, 2]


def test_scores_and_differences_agree_with_a_bootstrap_by_hand(summary):
    soft = [answers(0.9, seed) for seed in range(3)]
    full = [answers(0.92, seed) for seed in range(3)]
    of_soft, of_full = drawn_directly([soft, full], accuracy)
    line = line_of(summary, "full fine-tuning")
    expected = np.quantile(of_full - of_soft, [0.025, 0.975])
    assert summary.difference(line, summary.soft_prompt)[1:] == pytest.approx(expected, abs=0.008)
    score = line_of(summary, "soft prompt, P = 20").scores["accuracy"]
    assert score.value == pytest.approx(np.mean([accuracy(run, REFERENCES) for run in soft]))
    assert score[1:] == pytest.approx(np.quantile(of_soft, [0.025, 0.975]), abs=0.008)


def test_other_metrics_have_their_own_intervals(summary):
    runs = [answers(0.9, seed) for seed in range(3)]
    score = line_of(summary, "soft prompt, P = 20").scores["macro_f1"]
    each = [compute("macro_f1", run, REFERENCES) for run in runs]
    assert score.value == pytest.approx(np.mean(each))
    assert score.low < score.value < score.high


def test_one_run_has_the_interval_of_a_single_evaluation(summary):
    predictions = answers(0.7)
    alone = bootstrap_interval(predictions, REFERENCES, "accuracy", GROUPS, resamples=2000)
    assert line_of(summary, "zero-shot").scores["accuracy"] == pytest.approx(alone)


def test_a_further_method_moves_no_interval_of_the_others(summary):
    fewer = summarize(
        [r for r in rows() if r.method not in ("zero-shot", "8-shot")], REFERENCES, GROUPS
    )
    assert len(fewer.table) == len(summary.table) - 2
    for line in fewer.table:
        same = line_of(summary, line.name)
        assert line.scores == same.scores
        assert fewer.difference(line, fewer.soft_prompt) == summary.difference(
            same, summary.soft_prompt
        )


def test_costs_are_means_over_the_seeds(summary):
    line = line_of(summary, "soft prompt, P = 20")
    (record,) = (
        each
        for each in summary.to_record()["lines"]
        if (each["method"], each["setting"]) == ("soft prompt", "P = 20")
    )
    assert (record["bytes"], record["trainable_parameters"], record["prompt_tokens"]) == (
        55_002,
        640,
        20,
    )
    costs = (line.mean("train_seconds"), line.mean("predict_seconds"))
    assert costs == pytest.approx((22.0, 0.05))


def test_anchors_have_no_difference_to_themselves(summary):
    assert summary.soft_prompt.name == "soft prompt, P = 20"
    assert summary.difference(summary.soft_prompt, summary.soft_prompt) is None
    assert summary.difference(summary.fine_tuning, summary.fine_tuning) is None
    a = summary.difference(summary.soft_prompt, summary.fine_tuning)
    b = summary.difference(summary.fine_tuning, summary.soft_prompt)
    assert (a.value, a.low, a.high) == pytest.approx((-b.value, -b.high, -b.low))


@pytest.mark.parametrize("tokens", [(100, 3, 50), (100, 50)])
def test_without_the_default_length_the_middle_one_is_the_anchor(tokens):
    """Of two the shorter."""
    lengths = [replace(trained(0)[0], setting=f"P = {length}") for length in tokens]
    summary = summarize([*lengths, rows()[0]], REFERENCES, GROUPS)
    assert summary.soft_prompt.setting == "P = 50"
    assert summary.fine_tuning is None
    assert all(summary.difference(line, summary.fine_tuning) is None for line in summary.table)


def test_json_holds_every_figure(summary):
    record = json.loads(json.dumps(summary.to_record()))
    assert (record["metric"], record["test_examples"], record["test_groups"]) == (
        "accuracy",
        SIZE,
        30,
    )
    line = record["lines"][-1]
    assert line["method"] == "full fine-tuning" and line["seeds"] == [0, 1, 2]
    assert line["minus_soft_prompt"].keys() == {"value", "low", "high"}
    assert len(line["score_of_each_seed"]) == 3
    assert record["lines"][0]["minus_soft_prompt"]["value"] < 0


def test_texts_are_summed_up_too():
    texts = row("zero-shot", REFERENCES)
    texts = replace(texts, metrics={"exact_match": 1.0, "pass_at_1": 0.5})
    summary = summarize([texts], REFERENCES, None)
    low = pytest.approx(len(REFERENCES) / (len(REFERENCES) + 1.96**2), abs=1e-4)
    assert summary.table[0].scores == {"exact_match": (1.0, low, 1.0)}
    assert summary.groups is None
    code = replace(texts, metrics={"pass_at_1": 0.5})
    with pytest.raises(TaskError, match="some rows lack what these evaluate"):
        summarize([code], REFERENCES, None)


def test_programs_are_judged_by_what_they_are_and_how_they_ended():
    """The answers are bodies of functions: alone they are no programs."""
    half = SIZE // 2
    judged = {
        "code": ["def f():\n    return 1\n"] * half + ["def f(\n"] * half,
        "outcomes": ["passed"] * (SIZE // 4) + ["failed"] * (SIZE - SIZE // 4),
    }
    metrics = {"valid_python": 0.5, "pass_at_1": 0.25, "exact_match": 0.0}
    rows_of_code = [
        ComparedRow("zero-shot", metrics, ["    return 1"] * SIZE, judged=judged),
        ComparedRow("4-shot", metrics, ["    return 1"] * SIZE, judged=judged, seed=0),
    ]
    summary = summarize(rows_of_code, REFERENCES, GROUPS)
    for line in summary.table:
        assert {name: score.value for name, score in line.scores.items()} == metrics
    unrun = replace(rows_of_code[1], judged={"code": judged["code"]})
    summary = summarize([rows_of_code[0], unrun], REFERENCES, GROUPS)
    assert [*summary.table[0].scores] == ["valid_python", "exact_match"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ([], "no rows to compare"),
        ([replace(rows()[1], predictions=["good"])], "zero-shot  None has 1 predictions for 120"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(broken, message):
    with pytest.raises(DatasetError, match=message):
        summarize(broken, REFERENCES, GROUPS)


def test_what_was_not_run_is_said(summary):
    assert list(missing_runs(summary)) == [
        "Not run: zero-shot, bias-corrected, soft-prompt ensemble, LoRA."
    ]
    fewer = [r for r in rows() if r.method != "full fine-tuning" or r.seed == 0]
    _, said = missing_runs(summarize(fewer, REFERENCES, GROUPS))
    assert said.startswith("Full fine-tuning has one seed where others have 3")


def test_a_searched_learning_rate_comes_before_a_given_one():
    """It is the anchor; the table and the plot of scores against bytes have both."""
    given = next(row for row in rows() if row.method == "full fine-tuning")
    searched = replace(given, setting="rate searched", predictions=answers(0.95))
    small = replace(given, method="zero-shot", setting="", bytes=0)
    prompts = trained(0)[:2]
    prefix = replace(prompts[1], method="prefix", setting="P = 5", bytes=125_000)
    summary = summarize([given, *prompts, prefix, searched, small], REFERENCES, GROUPS)
    names = [line.name for line in summary.table]
    assert names[-2:] == ["full fine-tuning", "full fine-tuning, rate searched"]
    assert summary.fine_tuning.setting == "rate searched"
    (axes,) = storage(summary).axes
    drawn = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert drawn == {
        "soft prompt": [20_000, 55_000],
        "prefix": [125_000],
        "full fine-tuning": [4_000_000],
        "full fine-tuning, rate searched": [4_000_000],
    }
    scores = [100 * summary.score(line).value for line in summary.table[-2:]]
    assert [line.get_ydata()[0] for line in axes.lines[-2:]] == scores
    assert [text.get_text() for text in axes.texts] == ["5", "20", "5"]
    assert storage(summarize([small], REFERENCES, GROUPS)) is None
