"""Teachers: what they answer, what that costs, and what the manifest may know of them."""

import json
from dataclasses import replace

import pytest

from softhub.errors import TaskError, TrainingError
from softhub.evaluation.few_shot import predict_few_shot, written_out
from softhub.evaluation.hard_prompts import choose_label, mean_log_probabilities
from softhub.experiments.distillation import (
    BiasCorrectedTeacher,
    FewShotTeacher,
    ModelTeacher,
)
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Template
from tests.experiments.distillation.conftest import LONG, TASK, Table, labelled, texts
from tests.prompts import soft_prompt


class Counting(ModelTeacher):
    """Counts the texts that it is asked."""

    asked = 0

    def _classify(self, examples):
        self.asked += len(examples)
        return super()._classify(examples)


def test_a_text_is_asked_once(model):
    teacher = Counting(model, replace(TASK, template=LONG))
    first = teacher.classify(texts(6))
    again = teacher.classify([*texts(8), *labelled(texts(2))])
    assert teacher.asked == 8
    assert again[:6] == first
    assert again[8:] == first[:2]


def test_an_instruction_answers_as_the_base_does_with_its_template(model, teacher):
    own = [example.row for example in texts(5)]
    expected = model.predict(own, task=replace(TASK, template=LONG))
    assert teacher.classify(texts(5)) == expected
    assert teacher.source == {"from": "hard prompt", "template": LONG.text}
    assert teacher.instruction == "Is it good or not? Answer with one word.\n\nReview:"


def test_tokens_beside_a_text_are_what_the_whole_request_has_more(model, teacher):
    example, encoder = texts(3)[2], model.encoder
    alone = len(encoder.encode_plain(example.text).ids)
    whole = len(encoder.encode(LONG, example.row).ids)
    assert teacher.prompt_tokens(example) == whole - alone
    shots = labelled(texts(9))[5:]
    few = FewShotTeacher(model, TASK, TASK.template, shots)
    shown = written_out(TASK, TASK.template, shots) + TASK.template.render(example.row)
    assert few.prompt_tokens(example) == len(encoder.encode_plain(shown).ids) - alone
    prompt = soft_prompt(model.base, 9, TASK)
    short = len(encoder.encode(TASK.template, example.row).ids) - alone
    assert ModelTeacher(model, TASK, prompt=prompt).prompt_tokens(example) == 9 + short


def test_a_few_shot_teacher_shows_its_shots_and_the_manifest_only_their_hashes(model):
    shots = labelled(texts(9))[5:]
    teacher = FewShotTeacher(model, TASK, TASK.template, shots)
    expected = predict_few_shot(model, TASK, TASK.template, shots, texts(4))
    assert teacher.classify(texts(4)) == expected
    record = json.dumps(teacher.source)
    assert not any(shot.text in record for shot in shots)
    assert len(set(teacher.source["sha256_of_shots"])) == teacher.source["shots"] == 4
    with pytest.raises(TrainingError, match="no solved examples"):
        FewShotTeacher(model, TASK, TASK.template, [])


def test_two_prompts_of_one_engine_are_two_teachers(model):
    prompts = [soft_prompt(model.base, 5, TASK, seed=seed) for seed in (1, 2)]
    first, second = (ModelTeacher(model, TASK, prompt=prompt) for prompt in prompts)
    assert first.classify(texts(3)) != second.classify(texts(3))
    model.load_prompt(prompts[0], name="mine")
    mine = model.predict([example.row for example in texts(3)], prompt="mine")
    assert first.classify(texts(3)) == mine


def test_a_prompt_is_named_by_its_hashes(model, tmp_path):
    saved = soft_prompt(model.base, 5, TASK).save_pretrained(tmp_path / "adapter")
    prompt = SoftPrompt.from_pretrained(saved)
    record = ModelTeacher(model, TASK, prompt=prompt).source
    assert (record["from"], record["virtual_tokens"]) == ("soft prompt", 5)
    weights = "adapter_model.safetensors"
    assert record[f"sha256 of {weights}"] == prompt.manifest.files[weights]


def test_calibrating_takes_the_mean_off(teacher):
    corrected = BiasCorrectedTeacher(teacher, texts(20))
    said = teacher.classify(texts(20))
    bias = mean_log_probabilities(said)
    answers = [prediction.best for prediction in corrected.classify(texts(20))]
    assert answers == [choose_label(prediction, bias) for prediction in said]
    assert set(answers) == {"good", "bad"}
    assert answers != [prediction.best for prediction in said]
    assert all(
        sum(p.probabilities.values()) == pytest.approx(1) for p in corrected.classify(texts(20))
    )
    assert corrected.source == {
        **teacher.source,
        "bias_corrected": True,
        "bias_of_labels": list(bias.values()),
    }
    assert corrected.instruction == teacher.instruction


def test_a_teacher_of_one_s_own_needs_only_to_classify():
    teacher = Table(TASK, texts(3), [[0.9, 0.1], [0.2, 0.8], [0.0, 1.0]])
    said = teacher.classify(texts(3)[::-1])
    assert [prediction.best for prediction in said] == ["bad", "bad", "good"]
    assert said[1].probabilities == {"good": 0.2, "bad": 0.8}
    assert (teacher.prompt_tokens(texts(1)[0]), teacher.instruction) == (None, None)


def test_teachers_that_classify_cannot_write(model):
    table = Table(TASK, texts(1), [[0.5, 0.5]])
    with pytest.raises(TaskError, match="only classifies"):
        table.write(texts(1))
    chat = replace(TASK, system="Be brief.", template=Template("{text}"))
    assert ModelTeacher(model, chat).source["system"] == "Be brief."
    assert ModelTeacher(model, chat).instruction == "Be brief."
