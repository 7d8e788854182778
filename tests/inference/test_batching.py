"""Texts with a common beginning: it runs through the base once, and changes no answer."""

import pytest

from softhub.inference.engine import PromptModel
from softhub.model.device_settings import DEVICE_SETTINGS, DeviceSettings
from softhub.tasks import Template
from tests.prompts import MOOD, SUMMARY, TEXTS
from tests.references import assert_equal_in_float32

SHOTS = "Review: It broke.\nSentiment: negative\n\nReview: I love it.\nSentiment: positive\n\n"


def fed_shapes(model):
    """Shapes `[B, T]` of what goes through the base from now on."""
    shapes = []
    model.base.capabilities.rows(0)  # asking runs the layers too
    model.base.model.model.layers[0].register_forward_pre_hook(
        lambda _, inputs: shapes.append(tuple(inputs[0].shape[:2]))
    )
    return shapes


def with_shots(task):
    return type(task)(
        name="shots",
        kind=task.kind,
        template=Template(SHOTS + task.template.text),
        verbalizer=task.verbalizer,
        generation=task.generation,
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "t5"])
def test_answers_are_those_of_each_text_alone(kind, model_of):
    model, task = model_of(kind), with_shots(MOOD)
    names = [None, "mood", None, None, "topic"]
    targets = [" yes", " no", " not good", " true", " false"]
    found = model.predict(TEXTS, prompt=names, task=task)
    scores = model.target_logprobs(TEXTS, targets, prompt=names, task=task)
    for index, (text, name) in enumerate(zip(TEXTS, names, strict=True)):
        (alone,) = model.predict([text], prompt=name, task=task)
        assert_equal_in_float32(found[index].scores, alone.scores)
        (expected,) = model.target_logprobs([text], [targets[index]], prompt=name, task=task)
        assert_equal_in_float32(scores[index], expected)
    texts = model.generate(TEXTS, task=with_shots(SUMMARY))
    assert texts == [model.generate([text], task=with_shots(SUMMARY))[0] for text in TEXTS]


def test_the_beginning_runs_once_for_all_batches(tiny_base):
    model = PromptModel.from_pretrained(tiny_base("llama"))
    shapes = fed_shapes(model)
    model.predict(TEXTS, task=with_shots(MOOD), batch_size=2)
    once, *batches = [shape for shape in shapes if shape[1] > 3]
    assert once[0] == 1 and once[1] > DeviceSettings().least_shared
    assert [rows for rows, _ in batches[:3]] == [2, 2, 1]
    longest = max(len(model.encoder.encode_plain(text).ids) for text in TEXTS)
    assert all(tokens < longest + 10 for _, tokens in batches)


def test_what_reads_the_text_gets_all_of_it(model_of, monkeypatch):
    """A penalty for repetition counts the shared beginning too."""
    model, task = model_of("llama"), with_shots(SUMMARY)
    found = model.generate(TEXTS, task=task, repetition_penalty=3.0)
    monkeypatch.setitem(DEVICE_SETTINGS, "cpu", DeviceSettings(least_shared=10**6))
    assert model.generate(TEXTS, task=task, repetition_penalty=3.0) == found
    assert found != model.generate(TEXTS, task=task)
