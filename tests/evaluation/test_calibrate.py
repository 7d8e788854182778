"""From dev to the manifest: what is fitted travels with the prompt and changes what is answered."""

from dataclasses import replace

import numpy as np
import pytest

from softhub.errors import TaskError
from softhub.evaluation.calibrate import calibrate, decide_again
from softhub.evaluation.evaluate import evaluate
from softhub.evaluation.label_report import report_labels
from softhub.inference.engine import PromptModel
from softhub.metrics.calibration import expected_calibration_error
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Verbalizer
from softhub.tasks.decision import Decision
from tests.inference.test_prediction import ASPECTS
from tests.prompts import MOOD, SUMMARY, TOPIC, soft_prompt

WORDS = ("battery", "camera", "price", "sound", "screen", "money", "children", "value")


def examples(*labels):
    texts = [" ".join(WORDS[(n * k) % 8] for k in range(1, 5)) + f" {n}" for n in range(24)]
    return [
        Example(row={"text": text}, label=labels[n % len(labels)], group=str(n))
        for n, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def mood(loaded):
    base = loaded("llama")
    prompt = soft_prompt(base, 4, MOOD)
    model = PromptModel(base)
    model.load_prompt(prompt, name="mood")
    return model, prompt


def test_calibration_travels_in_the_manifest(mood, tmp_path):
    model, prompt = mood
    dev = examples("good", "bad", "bad")
    found = calibrate(model, MOOD, dev, prompt="mood", abstain_below=0.6)
    assert found.decision.temperature != 1
    assert found.dev.error < found.dev.error_before
    folder = found.applied_to(prompt).save_pretrained(tmp_path / "adapter")
    assert SoftPrompt.from_pretrained(folder).manifest.task["decision"] == {
        "temperature": found.decision.temperature,
        "threshold": 0.5,
        "abstain_below": 0.6,
    }
    model.load_prompt(folder, name="calibrated")
    rows = [example.row for example in dev]
    before, after = (model.predict(rows, prompt=name) for name in ("mood", "calibrated"))
    assert [p.best for p in before] == [p.best for p in after]
    assert after == decide_again(before, found.decision)
    sure = [p.confidence for p in after]
    right = [p.best == e.label for p, e in zip(after, dev, strict=True)]
    assert expected_calibration_error(sure, right) == pytest.approx(found.dev.error)
    assert [p.label is None for p in after] == [each < 0.6 for each in sure]


def test_a_task_s_own_rule_for_abstaining_stays(mood):
    model, _ = mood
    careful = replace(MOOD, decision=Decision(abstain_below=0.9))
    found = calibrate(model, careful, examples("good", "bad", "bad"), prompt="mood")
    assert found.decision.abstain_below == 0.9


def test_abstaining_reaches_the_wanted_accuracy(mood):
    model, _ = mood
    dev = examples("good", "bad", "bad")
    share = evaluate(model, MOOD, dev, prompt="mood").metrics["accuracy"].value
    found = calibrate(model, MOOD, dev, prompt="mood", accuracy=share)
    assert found.decision.abstain_below == 0
    answered = decide_again(evaluate(model, MOOD, dev, prompt="mood").details, found.decision)
    assert None not in [p.label for p in answered]
    wrong = [replace(e, label=p.best) for e, p in zip(dev, answered, strict=True)]
    flipped = [replace(e, label={"good": "bad", "bad": "good"}[e.label]) for e in wrong]
    with pytest.raises(TaskError, match=r"threshold does mood have an accuracy of 0\.9"):
        calibrate(model, MOOD, flipped, prompt="mood", accuracy=0.9)


def test_a_threshold_is_chosen_for_several_labels(loaded):
    base = loaded("llama")
    model = PromptModel(base)
    model.load_prompt(soft_prompt(base, 4, ASPECTS), name="aspects")
    task = replace(ASPECTS, metrics=("multilabel_micro_f1",))
    dev = examples("price", "price;battery", "", "battery", "sound")
    found = calibrate(model, task, dev, prompt="aspects")
    predictions = evaluate(model, task, dev, prompt="aspects").details
    references = [example.label for example in dev]

    def score(decision):
        from softhub.metrics import compute

        return compute(
            "multilabel_micro_f1", [p.best for p in decide_again(predictions, decision)], references
        )

    best = score(found.decision)
    for threshold in np.arange(0.05, 1, 0.05):
        assert best >= score(replace(found.decision, threshold=float(threshold)))
    assert found.dev.error <= found.dev.error_before + 1e-9


def test_sets_of_labels_do_not_depend_on_the_order_in_which_a_task_lists_them(loaded):
    base, decision = loaded("llama"), Decision(threshold=1e-9)
    model = PromptModel(base)
    own = replace(ASPECTS, decision=decision, metrics=("accuracy",))
    model.load_prompt(soft_prompt(base, 4, own), name="aspects")
    texts = [example.row["text"] for example in examples("")]
    found = model.predict(texts, prompt="aspects")
    assert any(";" in prediction.best for prediction in found), "the test needs sets of several"
    rows = [
        {"text": text, "label": list(prediction.labels)}
        for text, prediction in zip(texts, found, strict=True)
    ]
    reversed_words = dict(reversed(own.verbalizer.words))
    for words in (dict(own.verbalizer.words), reversed_words):
        task = replace(own, verbalizer=Verbalizer.from_mapping(words))
        test = task.to_examples(rows)
        evaluation = evaluate(model, task, test, prompt="aspects")
        assert evaluation.metrics["accuracy"].value == 1
        assert evaluation.predictions == evaluation.references
        report = report_labels(model.task_of("aspects"), test, evaluation, decision)
        assert report.reliability.answered.accuracy == 1
        calibrated = calibrate(model, task, test, prompt="aspects", accuracy=0.0)
        assert calibrated.dev == calibrate(model, own, own.to_examples(rows), prompt="aspects").dev


def test_the_report_by_label_agrees_with_the_evaluation(mood, capsys):
    model, _ = mood
    test = examples("good", "bad", "bad")
    task = replace(MOOD, metrics=("accuracy", "macro_f1"))
    evaluation = evaluate(model, task, test, prompt="mood")
    found = report_labels(task, test, evaluation, Decision(abstain_below=0.7))
    classes = found.classes.classes
    assert np.mean([each.f1.value for each in classes if each.support]) == pytest.approx(
        evaluation.metrics["macro_f1"].value
    )
    diagonal = sum(row[index] for index, row in enumerate(found.classes.confusion))
    assert diagonal / 24 == evaluation.metrics["accuracy"].value
    sure = [p.confidence >= 0.7 for p in evaluation.details]
    assert found.reliability.answered.coverage == np.mean(sure)
    found.print_classes()
    found.print_reliability()
    shown = capsys.readouterr().out
    assert "precision, %" in shown and "good" in shown
    assert "Expected calibration error" in shown
    assert "Abstention below a probability of 0.700" in shown
    assert set(found.to_record()) == {"per_class", "reliability", "decision"}


def test_what_has_no_labels_or_other_labels_is_refused(mood):
    model, _ = mood
    dev = examples("good", "bad")
    with pytest.raises(TaskError, match="only a classification can be calibrated"):
        calibrate(model, SUMMARY, dev, prompt="mood")
    with pytest.raises(TaskError, match=r"the label 'phone', which the prompt 'mood' does not"):
        evaluate(model, TOPIC, dev, prompt="mood")
    several = replace(
        MOOD, multilabel=True, verbalizer=Verbalizer.from_mapping({"good": " a?", "bad": " b?"})
    )
    with pytest.raises(TaskError, match="of kind multilabel"):
        calibrate(model, several, dev, prompt="mood")
    evaluation = replace(evaluate(model, MOOD, dev, prompt="mood"), details=())
    with pytest.raises(TaskError, match="need the predictions of a classification"):
        report_labels(MOOD, dev, evaluation, Decision())
