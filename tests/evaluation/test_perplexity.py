"""Perplexity of a domain's texts, with and without a prompt: a metric like the others."""

import math
from dataclasses import replace

import pytest

from softhub.errors import ConfigError, DatasetError
from softhub.evaluation.evaluate import evaluate, score_predictions
from softhub.evaluation.hard_prompts import (
    choose_hard_prompts,
    evaluate_hard_prompts,
    trivial_baselines,
)
from softhub.inference.engine import PromptModel
from softhub.metrics import compute
from softhub.metrics.intervals import bootstrap_interval
from softhub.tasks import Example, Task, Template
from tests.prompts import soft_prompt
from tests.references import target_nll

TASK = Task(
    name="text",
    kind="generation",
    template=Template("{name}:\n"),
    text_column="name",
    target_column="text",
    hard_templates=(Template("The {name} 🙂 is\n"), Template("{name}:\n"), Template("{name}\n")),
    metrics=("perplexity",),
)
EXAMPLES = [
    Example({"name": name}, target=text, group=name, text_column="name")
    for name, text in {"Eye": "It is of the heart.", "Skin": "It is false", "No": "True"}.items()
]


@pytest.fixture
def model(loaded, monkeypatch):
    engine = PromptModel(loaded("llama"))
    engine.load_prompt(soft_prompt(engine.base, 4, TASK), name="prompt")
    return engine


@pytest.fixture
def silent(model, monkeypatch):
    """A task whose only metric is perplexity generates nothing."""
    monkeypatch.setattr(model, "generate", None)
    return model


@pytest.mark.parametrize("prompt", [None, "prompt"])
def test_the_end_of_a_text_does_not_count(silent, prompt):
    rows, targets = [e.row for e in EXAMPLES], [e.target for e in EXAMPLES]
    scores = silent.target_logprobs(rows, targets, prompt=prompt, task=TASK)
    tokens = [score for text in scores for score in text[:-1]]
    found = evaluate(silent, TASK, EXAMPLES, prompt=prompt)
    perplexity = found.metrics["perplexity"]
    assert perplexity.value == pytest.approx(math.exp(-sum(tokens) / len(tokens)))
    assert perplexity.low <= perplexity.value <= perplexity.high
    assert (found.predictions, found.references) == ((), tuple(targets))
    assert found.seconds > 0 and found.examples_per_second > 0
    assert compute("perplexity", scores, targets) == pytest.approx(perplexity.value)
    whole = target_nll(silent, TASK, EXAMPLES, prompt=prompt)
    assert math.exp(whole) != pytest.approx(perplexity.value)


def test_the_template_is_the_one_with_the_lowest_perplexity(silent):
    values = {}
    for template in TASK.hard_templates:
        task = replace(TASK, template=template)
        values[template] = evaluate(silent, task, EXAMPLES).metrics["perplexity"].value
    (chosen,) = choose_hard_prompts(silent, TASK, EXAMPLES)
    assert chosen.template == min(values, key=values.get)
    assert chosen.dev_score == values[chosen.template] and chosen.bias is None
    assert len(set(values.values())) == 3


def test_the_prompt_is_compared_with_the_likeliest_template(silent):
    hard = choose_hard_prompts(silent, TASK, EXAMPLES)
    baselines = evaluate_hard_prompts(silent, TASK, hard, EXAMPLES[:2])
    assert list(baselines) == ["zero-shot"]
    plain = replace(TASK, template=hard[0].template)
    assert baselines["zero-shot"].metrics == evaluate(silent, plain, EXAMPLES[:2]).metrics
    soft = evaluate(silent, TASK, EXAMPLES[:2], prompt="prompt")
    assert soft.metrics != baselines["zero-shot"].metrics
    assert trivial_baselines(TASK, EXAMPLES, EXAMPLES) == {}


def test_beside_metrics_of_generated_texts_both_are_computed(model, caplog):
    mixed = replace(TASK, metrics=("chrf", "perplexity"), generation={"max_new_tokens": 4})
    found = evaluate(model, mixed, EXAMPLES, prompt="prompt")
    assert list(found.metrics) == ["chrf", "perplexity"] and len(found.predictions) == 3
    alone = evaluate(model, TASK, EXAMPLES, prompt="prompt")
    assert found.metrics["perplexity"] == alone.metrics["perplexity"]
    assert not caplog.records
    texts = score_predictions(mixed, EXAMPLES, found.predictions, 1.0)
    assert texts.metrics == {"chrf": found.metrics["chrf"]}
    assert "perplexity is left out: it needs the model's probabilities" in caplog.text
    assert list(trivial_baselines(mixed, EXAMPLES, EXAMPLES)["copied text"].metrics) == ["chrf"]


def test_predictions_alone_have_no_perplexity():
    with pytest.raises(ConfigError, match="perplexity, the only metric of the task text, needs"):
        score_predictions(TASK, EXAMPLES, ["a", "b", "c"], 1.0)


def test_texts_without_a_token_have_no_perplexity():
    with pytest.raises(DatasetError, match="no reference text has a token except its end"):
        compute("perplexity", [[-1.0], [-2.0]], ["", ""])
    with pytest.raises(DatasetError, match="no reference text has a token except its end"):
        bootstrap_interval([[-1.0]], ["x"], "perplexity")
    assert compute("perplexity", [[-1.0], [-2.0, -1.0]], ["", "x"]) == pytest.approx(math.exp(2))
