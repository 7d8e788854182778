"""Prompt ensembles: the mean of what each prompt says alone."""

from dataclasses import replace

import pytest

from softhub.errors import PromptNotLoaded, TaskError
from softhub.inference.engine import PromptModel
from softhub.inference.ensemble import predict_ensemble
from softhub.tasks import Verbalizer
from softhub.tasks.decision import Decision
from tests.prompts import MOOD, TOPIC, prefix, soft_prompt

TEXTS = ["It broke.", "I love it, it is a great value.", "no"]


@pytest.fixture
def model(loaded):
    base = loaded("llama")
    model = PromptModel(base)
    for seed, name in enumerate("abc"):
        make = prefix if name == "c" else soft_prompt
        model.load_prompt(make(base, 3 + seed, MOOD, seed=seed), name=name)
    return model


def test_probabilities_are_the_mean_of_those_alone(model):
    found = predict_ensemble(model, TEXTS, prompts=["a", "b", "c"], batch_size=4)
    alone = [model.predict(TEXTS, prompt=name) for name in "abc"]
    for index, prediction in enumerate(found):
        for label, probability in prediction.probabilities.items():
            votes = [votes[index].probabilities[label] for votes in alone]
            assert probability == pytest.approx(sum(votes) / 3, abs=1e-5)
        assert prediction.label == max(
            prediction.probabilities, key=prediction.probabilities.__getitem__
        )


def test_an_ensemble_of_one_is_that_prompt(model):
    (one,) = predict_ensemble(model, TEXTS[:1], prompts=["b"])
    (alone,) = model.predict(TEXTS[:1], prompt="b")
    assert one.label == alone.label
    assert one.probabilities == pytest.approx(alone.probabilities)


def decided(model, base, name, task, seed=0, **decision):
    task = replace(task, decision=Decision(**decision))
    model.load_prompt(soft_prompt(base, 3, task, seed=seed), name=name)


def test_several_labels_apply_from_the_threshold_of_the_tasks_on(model, loaded):
    several = replace(TOPIC, multilabel=True)
    decided(model, loaded("llama"), "low", several, temperature=40, threshold=0.3)
    decided(model, loaded("llama"), "high", several, seed=1, temperature=40, threshold=0.6)
    for name in ("low", "high"):
        alone = model.predict(TEXTS, prompt=name)
        found = predict_ensemble(model, TEXTS, prompts=[name, name, name])
        assert [each.labels for each in found] == [each.labels for each in alone]
    for each in predict_ensemble(model, TEXTS, prompts=["low", "high"]):
        chances = each.probabilities
        assert each.labels == tuple(label for label in chances if chances[label] >= 0.45)


def test_an_ensemble_abstains_as_its_tasks_do(model, loaded):
    decided(model, loaded("llama"), "sure", MOOD, abstain_below=1.0)
    decided(model, loaded("llama"), "always", MOOD, seed=1)
    found = predict_ensemble(model, TEXTS, prompts=["sure", "sure"])
    alone = model.predict(TEXTS, prompt="sure")
    assert [each.abstained for each in found] == [each.abstained for each in alone]
    assert found[0].abstained and found[0].label is None
    mixed = predict_ensemble(model, TEXTS, prompts=["sure", "always"])
    assert [each.abstained for each in mixed] == [each.confidence < 0.5 for each in mixed]


def test_prompts_for_other_labels_and_missing_ones_are_refused(model, loaded):
    other = replace(MOOD, verbalizer=Verbalizer.from_mapping({"up": " up", "down": " down"}))
    model.load_prompt(soft_prompt(loaded("llama"), 4, other), name="other")
    with pytest.raises(TaskError, match="a, other do not have the same labels"):
        predict_ensemble(model, TEXTS, prompts=["a", "other"])
    with pytest.raises(PromptNotLoaded, match="nobody"):
        predict_ensemble(model, TEXTS, prompts=["a", "nobody"])
    with pytest.raises(TaskError, match="no prompt"):
        predict_ensemble(model, TEXTS, prompts=[])
