"""From scores to probabilities, and to an answer or none."""

from dataclasses import replace

import pytest
import torch

from softhub.errors import ConfigError
from softhub.inference.engine import PromptModel
from softhub.inference.prediction import decide
from softhub.model.encoding import Candidates
from softhub.tasks import Task, Template, Verbalizer
from softhub.tasks.decision import Decision
from tests.prompts import MOOD, TOPIC, soft_prompt
from tests.references import assert_equal_in_float32

SINGLE = Candidates(("a", "b", "c"), ((1,), (2,), (3,)), (0, 1, 2))
MULTI = Candidates(("a", "b", "c"), (), (), yes_no=True)
ASPECTS = Task(
    name="aspects",
    kind="classification",
    multilabel=True,
    template=Template("Review: {text}\nIs it about the"),
    verbalizer=Verbalizer.from_mapping(
        {"price": " price?", "sound": [" sound?", " screen is great?"], "battery": " battery:"}
    ),
)
TEXTS = ["The battery lasts a whole day.", "It broke.", "Great value, easy to use, and fair."]


def test_temperature_softens_probabilities_and_changes_no_answer():
    scores = [-1.0, -3.0, -2.5]
    for temperature in (0.5, 1.0, 3.0):
        found = decide(SINGLE, scores, Decision(temperature=temperature))
        expected = (torch.tensor(scores) / temperature).softmax(0).tolist()
        assert list(found.probabilities.values()) == pytest.approx(expected)
        assert found.best == found.label == "a"
        assert found.confidence == pytest.approx(max(expected))
        assert list(found.scores.values()) == scores


def test_no_answer_below_the_wanted_confidence():
    scores = torch.tensor([0.5, 0.3, 0.2]).log().tolist()
    assert decide(SINGLE, scores, Decision(abstain_below=0.49)).label == "a"
    unsure = decide(SINGLE, scores, Decision(abstain_below=0.51))
    assert (unsure.label, unsure.best, unsure.abstained) == (None, "a", True)
    never = Decision(abstain_below=0.51).abstaining_below(0)
    assert decide(SINGLE, scores, never).label == "a"
    assert decide(SINGLE, scores, Decision().abstaining_below(0.51)).label is None
    assert Decision(abstain_below=0.51).abstaining_below(None) == Decision(abstain_below=0.51)


def test_each_label_of_several_is_held_against_the_threshold():
    scores = torch.tensor([0.9, 0.45, 0.1]).logit().tolist()
    found = decide(MULTI, scores, Decision())
    assert (found.label, found.labels) == ("a", ("a",))
    assert list(found.probabilities.values()) == pytest.approx([0.9, 0.45, 0.1])
    assert found.confidence == pytest.approx(0.55)  # the least certain decision: not b
    lower = decide(MULTI, scores, Decision(threshold=0.4))
    assert (lower.label, lower.labels) == ("a;b", ("a", "b"))
    none = decide(MULTI, [-1.0, -2.0, -3.0], Decision())
    assert (none.label, none.labels) == ("", ())
    assert decide(MULTI, scores, Decision(abstain_below=0.6)).label is None


@pytest.mark.parametrize("kind", ["llama", "mistral", "t5"])
def test_a_label_s_odds_are_the_base_s_own_of_yes_against_no(kind, loaded):
    """Computed by hand: the text with the question, and the next token's logits."""
    base = loaded(kind)
    task = replace(ASPECTS, verbalizer=Verbalizer.from_mapping({"p": " price?", "b": " battery:"}))
    found = PromptModel(base).predict(TEXTS, task=task)
    tokenizer = base.tokenizer
    yes, no = (
        tokenizer(word.strip() if kind == "t5" else word, add_special_tokens=False).input_ids
        for word in (" yes", " no")
    )
    for text, prediction in zip(TEXTS, found, strict=True):
        for label, (question,) in task.verbalizer.words:
            yes_sum, no_sum = (
                _sum(base, task, text, question, answer) for answer in (" yes", " no")
            )
            assert_equal_in_float32(
                prediction.scores[label], yes_sum - no_sum, terms=abs(yes_sum) + abs(no_sum)
            )
    assert len(yes) >= 1 and yes != no


def _sum(base, task, text, question, answer):
    """Summed log-probability of question and answer behind the text."""
    tokenizer, model = base.tokenizer, base.model
    front = tokenizer(task.template.render({"text": text})).input_ids
    if base.is_encoder_decoder:
        words = tokenizer((question + answer).strip(), add_special_tokens=False).input_ids
        labels = torch.tensor([words])
        logits = model(input_ids=torch.tensor([front]), labels=labels).logits[0]
    else:
        whole = tokenizer(task.template.render({"text": text}) + question + answer).input_ids
        words = whole[len(front) :]
        logits = model(torch.tensor([whole])).logits[0, len(front) - 1 : -1]
    steps = logits.log_softmax(-1)
    return sum(steps[i, token].item() for i, token in enumerate(words))


def test_one_batch_mixes_single_and_multi_label_prompts(loaded):
    base = loaded("llama")
    model = PromptModel(base)
    aspects = replace(ASPECTS, decision=Decision(temperature=2.0, threshold=0.3))
    for name, task in (("mood", MOOD), ("topic", TOPIC), ("aspects", aspects)):
        model.load_prompt(soft_prompt(base, 4, task, seed=len(name)), name=name)
    names = ["aspects", "mood", "topic"]
    mixed = model.predict(TEXTS, prompt=names)
    for text, name, found in zip(TEXTS, names, mixed, strict=True):
        (alone,) = model.predict([text], prompt=name)
        assert (found.best, found.labels) == (alone.best, alone.labels)
        assert_equal_in_float32(found.scores, alone.scores)
    expected = {k: 1 / (1 + 2.718281828459045 ** (-s / 2)) for k, s in mixed[0].scores.items()}
    assert mixed[0].probabilities == pytest.approx(expected)
    assert mixed[0].labels == tuple(label for label, p in expected.items() if p >= 0.3)


def test_abstaining_is_asked_for_by_call_or_task(loaded):
    base = loaded("llama")
    model = PromptModel(base)
    model.load_prompt(soft_prompt(base, 4, MOOD), name="mood")
    careful = replace(MOOD, decision=Decision(abstain_below=1.0))
    model.load_prompt(soft_prompt(base, 4, careful), name="careful")
    assert None not in [p.label for p in model.predict(TEXTS, prompt="mood")]
    assert [p.label for p in model.predict(TEXTS, prompt="careful")] == [None] * 3
    answered = model.predict(TEXTS, prompt="careful", abstain_below=0)
    assert [p.label for p in answered] == [p.best for p in model.predict(TEXTS, prompt="careful")]
    with pytest.raises(ConfigError, match="abstain_below is 80"):
        model.predict(TEXTS, prompt="mood", abstain_below=80)
