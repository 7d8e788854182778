"""`distill`: the student comes near its teacher, by labels or by texts."""

from dataclasses import replace

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, PromptTuningConfig

from softhub.errors import SoftHubWarning, TrainingError, TrainingInterrupted
from softhub.experiments.distillation import BiasCorrectedTeacher, ModelTeacher
from softhub.inference.engine import PromptModel
from softhub.model.loading import load_base
from softhub.tasks import Template, Verbalizer, dataset_hash
from softhub.tasks.decision import Decision
from tests.experiments.distillation.conftest import ECHO, LONG, TASK, Table, texts

pytestmark = pytest.mark.filterwarnings("ignore::softhub.errors.SoftHubWarning")


def divergences(result):
    return [logs["eval_loss"] for logs in result.history if "eval_loss" in logs]


@pytest.mark.parametrize("method", [PromptTuningConfig, PrefixTuningConfig])
def test_the_student_comes_near_its_teacher(method, model, teacher, run):
    result = run(model, teacher, method=method, max_steps=24, eval_steps=8, save_steps=8)
    before, *_, after = divergences(result)
    assert after < 0.3 * before
    assert result.best_score == min(divergences(result)[1:])
    provenance = result.prompt.manifest.provenance
    assert provenance["distilled"] == {"from": "hard prompt", "template": LONG.text}
    assert provenance["dataset"]["train"]["sha256"] == dataset_hash(texts(32))
    assert result.prompt.manifest.task["template"] == TASK.template.text


def test_the_dev_score_is_the_divergence_that_plain_peft_has(model, teacher, run, tmp_path):
    """PEFT's own forward with the saved adapter, one text at a time, without pads."""
    corrected = BiasCorrectedTeacher(teacher, texts(32))
    result = run(model, corrected, max_steps=4, eval_on_start=False)
    folder = result.prompt.save_pretrained(tmp_path / "adapter")
    peft = PeftModel.from_pretrained(model.base.model, folder)
    words = model.encoder.candidates_of(TASK)
    dev, total = texts(44)[32:], 0.0
    for example, said in zip(dev, corrected.classify(dev), strict=True):
        ids = model.encoder.encode(TASK.template, example.row).ids
        scores = torch.stack([_log_probability(peft, ids, word) for word in words.sequences])
        owners = torch.tensor(words.owners)
        ours = torch.stack([scores[owners == label].logsumexp(0) for label in (0, 1)])
        theirs = torch.tensor(list(said.probabilities.values()))
        total += float((theirs * (theirs.log() - ours.log_softmax(0))).sum())
    assert result.best_score == pytest.approx(total / len(dev), rel=1e-3, abs=1e-5)


@torch.no_grad()
def _log_probability(peft, ids, word):
    logits = peft(input_ids=torch.tensor([[*ids, *word]])).logits[0, -len(word) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(word)[:, None]).sum()


def test_a_table_is_learned_on_a_base_of_sliding_windows(tiny_base, run):
    """Its probabilities are matched as they are: the student's need no temperature."""
    task = replace(TASK, decision=Decision(temperature=3.0, abstain_below=0.2))
    everything = texts(44)
    table = [[0.9, 0.1] if "great" in example.text else [0.3, 0.7] for example in everything]
    source = {"from": "full fine-tuning", "steps": 120}
    teacher = Table(task, everything, table, source=source)
    model = PromptModel(load_base(tiny_base("mistral")))
    result = run(model, teacher, task, max_steps=8)
    assert min(divergences(result)[1:]) < divergences(result)[0]
    assert result.prompt.manifest.provenance["distilled"] == source
    decision = result.prompt.manifest.task["decision"]
    assert (decision["temperature"], decision["abstain_below"]) == (1.0, 0.2)


def test_several_labels_a_text_are_matched_each(model, run):
    """A multi-label teacher says a probability of each decision."""
    task = replace(
        TASK, multilabel=True, metrics=("multilabel_micro_f1",), template=Template("{text} Is it")
    )
    everything = texts(44)
    table = [[0.8, 0.3] if "great" in example.text else [0.1, 0.6] for example in everything]
    result = run(model, Table(task, everything, table), task)
    assert divergences(result)[-1] < 0.5 * divergences(result)[0]


def test_a_generating_teacher_s_texts_are_learned(model, run):
    teacher = ModelTeacher(model, replace(ECHO, template=Template("Now answer.\n{text} =")))
    result = run(model, teacher, ECHO, max_steps=24, eval_steps=8, save_steps=8)
    assert divergences(result)[-1] < 0.9 * divergences(result)[0]
    written = teacher.write(texts(44))
    assert all(isinstance(text, str) for text in written)
    assert result.prompt.manifest.provenance["distilled"]["template"] == "Now answer.\n{text} ="


class Silent(ModelTeacher):
    """Writes nothing behind most texts, or all."""

    every = 4

    def _write(self, examples):
        return [" yes\n" if i % self.every == 0 else " \n" for i in range(len(examples))]


def test_texts_without_an_answer_are_left_out(model, run):
    with pytest.warns(SoftHubWarning, match="answers to 24 of 32 texts are empty"):
        run(model, Silent(model, ECHO), ECHO, max_steps=1, eval_steps=1, save_steps=1)
    nothing = Silent(model, ECHO)
    nothing._write = lambda examples: [""] * len(examples)
    with pytest.raises(TrainingError, match="answers to all 32 texts are empty"):
        run(model, nothing, ECHO)


def test_a_teacher_of_other_labels_is_refused(model, run):
    other = Verbalizer.from_mapping({"yes": " great", "no": " waste"})
    teacher = ModelTeacher(model, replace(TASK, verbalizer=other))
    with pytest.raises(TrainingError, match=r"answers with yes, no; expected .* bad, good"):
        run(model, teacher)


def test_a_stopped_run_goes_on_to_the_same_student(model, teacher, run, tmp_path, ctrl_c_at):
    whole = run(model, teacher, output_dir=str(tmp_path / "whole"), logging_steps=1)
    with ctrl_c_at(5), pytest.raises(TrainingInterrupted):
        run(model, teacher, logging_steps=1)
    resumed = run(model, teacher, logging_steps=1, resume=True)
    assert torch.allclose(resumed.prompt.vectors, whole.prompt.vectors, atol=1e-6)
    other = ModelTeacher(model, replace(TASK, template=Template("In a word, {text} is")))
    with pytest.raises(
        TrainingError, match=r"began with teacher .*good or not.*instead of .*In a word"
    ):
        run(model, other, logging_steps=1, resume=True)
