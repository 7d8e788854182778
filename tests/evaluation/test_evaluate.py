"""Judging both kinds of task: what was answered, how well, and whether code may be run."""

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sacrebleu import corpus_bleu, corpus_chrf

from softhub.errors import ConfigError, DatasetError, TaskError
from softhub.evaluation.evaluate import evaluate, score_predictions
from softhub.inference.engine import PromptModel
from softhub.tasks import Example, Template
from softhub.training.data import collate, encode_examples
from softhub.training.module import PromptTuningModule
from tests.prompts import MOOD, SUMMARY, TEXTS, soft_prompt
from tests.references import target_nll

TASK = replace(SUMMARY, metrics=("chrf", "sacrebleu", "exact_match"))
LIKELIHOOD = replace(SUMMARY, metrics=("perplexity",))
CODE = replace(
    SUMMARY,
    name="code",
    template=Template("{text}\n"),
    code_column="text",
    test_column="test",
    metrics=("valid_python", "pass_at_1"),
)


def examples(size=12):
    targets = [" yes", " no, it is not", " good value for the price"]
    return [
        Example(
            row={"text": f"{TEXTS[n % 5]} {n}"}, target=targets[n % 3] * (n % 4 + 1), group=str(n)
        )
        for n in range(size)
    ]


@pytest.fixture
def model(loaded):
    base = loaded("llama")
    model = PromptModel(base)
    model.load_prompt(soft_prompt(base, 5, SUMMARY), name="summary")
    model.load_prompt(soft_prompt(base, 5, MOOD), name="mood")
    return model


def test_a_generation_task_is_judged_by_the_texts_it_generates(model):
    test = examples()
    found = evaluate(model, TASK, test, prompt="summary", batch_size=5)
    expected = model.generate([example.row for example in test], prompt="summary")
    assert list(found.predictions) == expected
    assert list(found.references) == [example.target for example in test]
    assert found.metrics["chrf"].value == pytest.approx(
        corpus_chrf(expected, [list(found.references)]).score / 100
    )
    assert found.metrics["sacrebleu"].value == pytest.approx(
        corpus_bleu(expected, [list(found.references)]).score / 100
    )
    assert list(found.metrics) == list(TASK.metrics)
    assert found.seconds > 0 and found.outcomes == ()


def test_the_bare_base_is_judged_with_the_task_and_options_override_it(model):
    test = examples(10)
    found = evaluate(model, TASK, test, max_new_tokens=3)
    shown = [TASK.template.render(example.row) for example in test]
    assert list(found.predictions) == model.generate(shown, max_new_tokens=3)
    assert found.predictions != evaluate(model, TASK, test).predictions


def test_without_metrics_a_generation_is_judged_by_exact_match():
    test = examples(12)
    found = score_predictions(SUMMARY, test, [f"{example.target}\n" for example in test], 1.0)
    assert list(found.metrics) == ["exact_match"]
    assert found.metrics["exact_match"].value == 1


def test_the_wrong_kind_is_refused(model):
    test = examples(10)
    with pytest.raises(TaskError, match=r"'mood' was made for the task mood.*classification"):
        evaluate(model, TASK, test, prompt="mood")
    with pytest.raises(TaskError, match=r"'summary' was made for .*generation"):
        evaluate(model, MOOD, test, prompt="summary")
    with pytest.raises(TaskError, match="made for the task mood"):
        evaluate(model, LIKELIHOOD, test, prompt="mood")
    with pytest.raises(TaskError, match=r"perplexity .*classification"):
        replace(MOOD, metrics=("perplexity",))
    with pytest.raises(ConfigError, match=r"max_new_tokens: the task mood is a classification"):
        evaluate(model, MOOD, test, max_new_tokens=3)


def test_examples_without_answers_are_refused(model):
    labelled = [Example(row={"text": "Good."}, label="good")] * 2
    with pytest.raises(DatasetError, match=r"Example 1 of 2 has no target.*summary \(generation\)"):
        evaluate(model, TASK, labelled)
    with pytest.raises(DatasetError, match=r"Example 3 of 10 has no target"):
        unfinished = examples(10)
        unfinished[2] = replace(unfinished[2], target=None)
        evaluate(model, LIKELIHOOD, unfinished)
    with pytest.raises(DatasetError, match="nothing to score"):
        evaluate(model, LIKELIHOOD, [])


# --- loss of reference texts ---


@pytest.mark.parametrize("kind", ["llama", "gemma2", "t5"])
def test_the_loss_is_the_one_that_training_minimises(kind, loaded):
    base = loaded(kind)
    model = PromptModel(base)
    soft = soft_prompt(base, 5, SUMMARY)
    model.load_prompt(soft, name="summary")
    test = examples()
    found = target_nll(model, SUMMARY, test, prompt="summary", batch_size=5)
    encoded = encode_examples(model.encoder, SUMMARY, test, None, None)
    batch = collate([encoded[index] for index in range(len(encoded))])
    with torch.no_grad():
        loss = PromptTuningModule(base, soft.vectors, None)(**batch)["loss"].item()
    assert found == pytest.approx(loss, rel=1e-5)


def test_perplexity_is_per_token_over_all_texts(model):
    test = examples()
    scores = model.target_logprobs(
        [example.row for example in test], [example.target for example in test], task=SUMMARY
    )
    expected = -np.concatenate([np.array(tokens[:-1]) for tokens in scores]).mean()
    found = evaluate(model, LIKELIHOOD, test).metrics["perplexity"]
    assert found.value == pytest.approx(math.exp(expected), rel=1e-6)
    assert found.low < found.value < found.high


# --- code ---

SIGNATURE = "def double(x):\n"
TESTS = "assert double(3) == 6\nassert double('a') == 'aa'\n"
ANSWERS = ["    return x + x", "    return 2 *", "    return x", "    import sys; sys.exit(0)"] * 3


def code_examples():
    return [
        Example(row={"text": SIGNATURE, "test": TESTS}, target="    return 2 * x", group=str(n))
        for n in range(len(ANSWERS))
    ]


def test_code_is_not_run_unless_asked_for(caplog, monkeypatch):
    monkeypatch.setattr("softhub.evaluation.evaluate.run_programs", None)
    with caplog.at_level(logging.WARNING, "softhub"):
        found = score_predictions(CODE, code_examples(), ANSWERS, 1.0)
    assert list(found.metrics) == ["valid_python"]
    assert found.metrics["valid_python"].value == 0.75  # with the signature before it
    assert [record.message for record in caplog.records] == [
        "pass_at_1 is left out: it runs generated code, which needs run_code=True "
        "(on the command line: --run-generated-code)."
    ]


def test_code_that_was_asked_for_is_run_and_its_ends_are_kept(caplog, confined):
    with caplog.at_level(logging.WARNING, "softhub"):
        found = score_predictions(CODE, code_examples(), ANSWERS, 1.0, run_code=True)
    assert found.metrics["pass_at_1"].value == 0.25
    assert [outcome.kind for outcome in found.outcomes[:4]] == [
        "passed",
        "failed",
        "failed",
        "exited",
    ]
    assert found.predictions == tuple(ANSWERS)
    assert "no network" in caplog.text


@pytest.fixture
def confined():
    from softhub.evaluation.sandbox.runner import confinement

    try:
        confinement()
    except ConfigError as error:
        pytest.skip(f"no sandbox here: {error}")


def test_a_task_with_no_other_metric_says_what_to_do(model):
    only = replace(CODE, metrics=("pass_at_1",))
    with pytest.raises(ConfigError, match=r"only metric of the task code.*run_code=True"):
        evaluate(model, only, code_examples())


def test_where_code_cannot_be_run_nothing_is_generated_first(model, monkeypatch):
    def refuse():
        raise ConfigError("Generated code runs only inside bubblewrap")

    monkeypatch.setattr("softhub.evaluation.evaluate.confinement", refuse)
    monkeypatch.setattr(model, "generate", None)
    with pytest.raises(ConfigError, match="only inside bubblewrap"):
        evaluate(model, CODE, code_examples(), run_code=True)
