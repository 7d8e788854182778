"""Prompt ensembles: the mean of what each prompt says alone."""

from dataclasses import replace

import pytest

from softhub.errors import PromptNotLoaded, TaskError
from softhub.inference.engine import PromptModel
from softhub.inference.ensemble import predict_ensemble
from softhub.tasks import Verbalizer
from tests.prompts import MOOD, prefix, soft_prompt

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


def test_prompts_for_other_labels_and_missing_ones_are_refused(model, loaded):
    other = replace(MOOD, verbalizer=Verbalizer.from_mapping({"up": " up", "down": " down"}))
    model.load_prompt(soft_prompt(loaded("llama"), 4, other), name="other")
    with pytest.raises(TaskError, match="a, other do not have the same labels"):
        predict_ensemble(model, TEXTS, prompts=["a", "other"])
    with pytest.raises(PromptNotLoaded, match="nobody"):
        predict_ensemble(model, TEXTS, prompts=["a", "nobody"])
    with pytest.raises(TaskError, match="no prompt"):
        predict_ensemble(model, TEXTS, prompts=[])
