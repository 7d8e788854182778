"""What a soft prompt has to beat: the commonest label, and the base's best hard prompt."""

import math
from dataclasses import replace

import pytest

from softhub.errors import DatasetError
from softhub.evaluation.evaluate import evaluate, score_predictions
from softhub.evaluation.hard_prompts import (
    HardPrompt,
    choose_hard_prompts,
    evaluate_hard_prompts,
    majority_class,
    trivial_baselines,
)
from softhub.inference.engine import Prediction, PromptModel
from softhub.tasks import Example, Template
from softhub.tasks.decision import Decision
from tests.prompts import MOOD, SUMMARY, TOPIC, soft_prompt

TASK = replace(MOOD, metrics=("accuracy", "macro_f1"))


def examples(*labels):
    return [
        Example(row={"text": f"Text {n}"}, label=label, group=str(n))
        for n, label in enumerate(labels)
    ]


class Scripted:
    """An engine that answers each template with log-odds of `good` written down beforehand."""

    def __init__(self, **log_odds):
        self.log_odds = log_odds
        self.asked = []

    def predict(self, texts, *, task, prompt, batch_size, progress):
        assert prompt is None, "hard prompts are for the bare base"
        self.asked.append(task.template.text)
        odds = self.log_odds[task.template.text.split(":")[0]]
        return [scripted(odds[int(row["text"].split()[1])]) for row in texts]


def scripted(log_odds):
    good = 1 / (1 + math.exp(-log_odds))
    scores = {"good": math.log(good) - 5, "bad": math.log(1 - good) - 5}
    label = max(scores, key=scores.__getitem__)
    return Prediction(label, {"good": good, "bad": 1 - good}, scores)


def with_templates(*names):
    return replace(TASK, hard_templates=tuple(Template(f"{name}: {{text}}\nA:") for name in names))


DEV = examples("good", "good", "bad", "bad")


def test_the_best_template_on_dev_is_chosen_plain_and_calibrated():
    """`Biased` says bad of everything, but ranks the texts right; `Fair` makes one mistake."""
    model = Scripted(Biased=[-1, -1.5, -4, -5], Fair=[2, 2, 1, -2], Poor=[-1, -1, 1, 1])
    plain, calibrated = choose_hard_prompts(model, with_templates("Poor", "Fair", "Biased"), DEV)
    assert (plain.template.text[:4], plain.dev_score, plain.bias) == ("Fair", 0.75, None)
    assert (calibrated.template.text[:4], calibrated.dev_score) == ("Bias", 1.0)
    assert calibrated.bias["bad"] > calibrated.bias["good"]
    assert (plain.name, calibrated.name) == ("zero-shot", "zero-shot, bias-corrected")


def test_the_temperature_of_the_task_s_decision_changes_no_answer(loaded):
    model, dev = PromptModel(loaded("llama")), examples(*("good", "bad", "bad") * 8)
    tasks = [replace(TASK, decision=Decision(temperature=each)) for each in (1.0, 5.0)]
    plain, tempered = (choose_hard_prompts(model, task, dev) for task in tasks)
    assert plain == tempered


def test_without_examples_there_is_nothing_to_choose_on(loaded):
    model = PromptModel(loaded("llama"))
    with pytest.raises(DatasetError, match="There is no dev example"):
        choose_hard_prompts(model, TASK, [])
    with pytest.raises(DatasetError, match="There is no training example"):
        majority_class(TASK, [], DEV)


def test_the_first_metric_chooses():
    """All bad: accuracy 3/4, macro-F1 poor; one mistake less even-handed: the other way round."""
    dev = examples("good", "bad", "bad", "bad", "bad")
    model = Scripted(AllBad=[-1, -1, -1, -1, -1], Mixed=[1, 1, -1, -1, 1])
    chosen = [
        choose_hard_prompts(model, replace(with_templates("AllBad", "Mixed"), metrics=metrics), dev)
        for metrics in (("accuracy",), ("macro_f1",))
    ]
    assert [plain.template.text.split(":")[0] for plain, _ in chosen] == ["AllBad", "Mixed"]


def test_without_hard_templates_the_task_s_own_is_judged():
    model = Scripted(Review=[1, 1, -1, -1])
    plain, _ = choose_hard_prompts(model, TASK, DEV)
    assert plain.template == TASK.template


def test_calibration_of_dev_is_used_on_test_and_templates_run_once():
    template = Template("Biased: {text}\nA:")
    model = Scripted(Biased=[-1, -3, -4, -5])
    test = examples("good", "good", "bad", "bad")
    hard = [HardPrompt(template, None, 0.5), HardPrompt(template, {"good": -3.5, "bad": -0.1}, 1.0)]
    found = evaluate_hard_prompts(model, TASK, hard, test)
    plain, calibrated = found["zero-shot"], found["zero-shot, bias-corrected"]
    assert len(model.asked) == 1
    assert plain.predictions == ("bad",) * 4
    assert calibrated.predictions == ("good", "good", "bad", "bad")
    assert calibrated.metrics["accuracy"].value == 1


def test_the_majority_is_of_the_training_split():
    train = examples("bad", "bad", "good")
    found = majority_class(TASK, train, examples("good", "good", "good", "bad"))
    assert found.predictions == ("bad",) * 4
    assert found.metrics["accuracy"].value == 0.25
    assert found.seconds == 0


def test_without_a_model_a_text_is_copied_or_the_majority_answered():
    train, test = examples("bad", "bad", "good"), examples("bad", "good")
    assert trivial_baselines(TASK, train, test) == {
        "majority label": majority_class(TASK, train, test)
    }
    summary = replace(SUMMARY, metrics=("exact_match",))
    rows = [Example({"text": "yes"}, target="yes"), Example({"text": "no"}, target="not")]
    (copied,) = trivial_baselines(summary, rows, rows).values()
    assert (copied.predictions, copied.metrics["exact_match"].value) == (("yes", "no"), 0.5)


def test_evaluation_of_a_prompt_is_what_it_predicts(loaded):
    base = loaded("llama")
    model = PromptModel(base)
    model.load_prompt(soft_prompt(base, 5, MOOD), name="mood")
    test = examples("good", "bad", "good", "bad", "good")
    found = evaluate(model, TASK, test, prompt="mood", batch_size=2)
    expected = [p.label for p in model.predict([e.row for e in test], prompt="mood")]
    assert list(found.predictions) == expected
    assert found.references == ("good", "bad", "good", "bad", "good")
    right = [a == e.label for a, e in zip(expected, test, strict=True)]
    assert found.metrics["accuracy"].value == sum(right) / 5
    assert found.seconds > 0 and found.examples_per_second > 0
    bare = evaluate(model, TASK, test)
    assert list(bare.predictions) == [
        p.label for p in model.predict([e.row for e in test], task=TASK)
    ]


def test_judging_gives_every_metric_of_the_task_or_accuracy():
    test = examples("good", "bad", "good", "bad")
    found = score_predictions(TASK, test, ["good", "bad", "bad", "bad"], 2.0)
    assert list(found.metrics) == ["accuracy", "macro_f1"]
    interval = found.metrics["accuracy"]
    assert interval.low <= interval.value == 0.75 <= interval.high
    assert found.examples_per_second == 2
    assert list(score_predictions(TOPIC, test, ["good"] * 4, 0.0).metrics) == ["accuracy"]
    with pytest.raises(ValueError):
        score_predictions(TASK, test, ["good"], 0.0)
