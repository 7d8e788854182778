"""Perplexity of a domain's texts, with and without a prompt."""

import math
from dataclasses import replace

import pytest

from softhub.evaluation.evaluate import target_loss
from softhub.evaluation.perplexity import (
    compare_perplexity,
    evaluate_perplexity,
    likeliest_template,
)
from softhub.inference.engine import PromptModel
from softhub.tasks import Example, Task, Template
from tests.prompts import soft_prompt

TASK = Task(
    name="text",
    kind="generation",
    template=Template("{name}:\n"),
    text_column="name",
    target_column="text",
    hard_templates=(Template("The {name} 🙂 is\n"), Template("{name}:\n"), Template("{name}\n")),
)
EXAMPLES = [
    Example({"name": name}, target=text, group=name, text_column="name")
    for name, text in {"Eye": "It is of the heart.", "Skin": "It is false", "No": "True"}.items()
]


@pytest.fixture
def model(loaded):
    engine = PromptModel(loaded("llama"))
    engine.load_prompt(soft_prompt(engine.base, 4, TASK), name="prompt")
    return engine


@pytest.mark.parametrize("prompt", [None, "prompt"])
def test_the_end_of_a_text_does_not_count(model, prompt):
    rows, targets = [e.row for e in EXAMPLES], [e.target for e in EXAMPLES]
    scores = model.target_logprobs(rows, targets, prompt=prompt, task=TASK)
    tokens = [score for text in scores for score in text[:-1]]
    found = evaluate_perplexity(model, TASK, EXAMPLES, prompt=prompt)
    perplexity = found.metrics["perplexity"]
    assert perplexity.value == pytest.approx(math.exp(-sum(tokens) / len(tokens)))
    assert perplexity.low <= perplexity.value <= perplexity.high
    assert (found.predictions, found.references) == ((), tuple(targets))
    whole = target_loss(model, TASK, EXAMPLES, prompt=prompt)
    assert whole.tokens == len(tokens) + len(EXAMPLES)
    assert whole.perplexity.value != pytest.approx(perplexity.value)


def test_the_template_is_the_one_with_the_lowest_perplexity(model):
    values = {}
    for template in TASK.hard_templates:
        task = Task(name="t", kind="generation", template=template, text_column="name")
        scores = evaluate_perplexity(model, task, EXAMPLES)
        values[template] = scores.metrics["perplexity"].value
    assert likeliest_template(model, TASK, EXAMPLES) == min(values, key=values.get)
    assert len(set(values.values())) == 3


def test_the_prompt_is_held_against_the_likeliest_template(model):
    (template,), baselines, soft = compare_perplexity(
        model, TASK, EXAMPLES, EXAMPLES[:2], prompt="prompt"
    )
    assert template == likeliest_template(model, TASK, EXAMPLES)
    assert list(baselines) == ["zero-shot"]
    plain = replace(TASK, template=template)
    assert baselines["zero-shot"].metrics == evaluate_perplexity(model, plain, EXAMPLES[:2]).metrics
    alone = evaluate_perplexity(model, TASK, EXAMPLES[:2], prompt="prompt")
    assert soft.metrics == alone.metrics != baselines["zero-shot"].metrics
