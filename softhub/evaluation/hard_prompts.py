"""What a soft prompt has to beat: what needs no model, and the base's best hard prompt."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from softhub.evaluation.evaluate import Evaluation, evaluate, judge, predict_examples
from softhub.inference.engine import Prediction, PromptModel
from softhub.metrics import compute
from softhub.metrics.label_sets import join_labels
from softhub.tasks import Example, Task, Template


@dataclass(frozen=True)
class HardPrompt:
    """A template for the bare base, chosen on dev.

    Attributes:
        template: The template.
        bias: Mean log-probability of each label over the dev texts, taken off each score, or None.
            In the manner of batch calibration (Zhou et al. 2023, arXiv 2309.17249), which takes
            the log of the mean instead; neither needs labels.
        dev_score: What chose it: the task's first metric on dev.
    """

    template: Template
    bias: Mapping[str, float] | None
    dev_score: float

    @property
    def name(self) -> str:
        """What tables call it."""
        return "zero-shot, calibrated" if self.bias else "zero-shot"


def majority_class(task: Task, train: Sequence[Example], test: Sequence[Example]) -> Evaluation:
    """Always answer the commonest label of the training split."""
    label = Counter(str(example.label) for example in train).most_common(1)[0][0]
    return judge(task, test, [label] * len(test), 0.0)


def without_model(
    task: Task, train: Sequence[Example], test: Sequence[Example]
) -> dict[str, Evaluation]:
    """What needs no model at all: the majority label, or each text given back as it is.

    Copying scores well where answers share words with their texts, as in translation.
    """
    if task.kind == "classification":
        return {"majority label": majority_class(task, train, test)}
    return {"copied text": judge(task, test, [example.text for example in test], 0.0)}


def choose_hard_prompts(
    model: PromptModel,
    task: Task,
    dev: Sequence[Example],
    *,
    batch_size: int = 32,
    run_code: bool = False,
) -> tuple[HardPrompt, ...]:
    """Judge the task's hard templates on dev, each as it is and, for labels, calibrated.

    A gain over a weak prompt is a gain in format only, so the baselines are the strongest.

    Args:
        model: The engine.
        task: The task; without `hard_templates` its own template is the only candidate.
        dev: Examples that choose.
        batch_size: Examples in one pass.
        run_code: As in `evaluate`.

    Returns:
        The best template as it is and, for a classification, the best calibrated one.
    """
    if task.kind == "generation":
        return (_best(_generating(model, task, dev, batch_size, run_code)),)
    metric = task.metrics[0] if task.metrics else "accuracy"
    references = [str(example.label) for example in dev]
    plain: list[HardPrompt] = []
    calibrated: list[HardPrompt] = []
    for template in task.hard_templates or (task.template,):
        predictions = _predict(model, task, template, dev, batch_size)
        for candidates, bias in ((plain, None), (calibrated, mean_log_probabilities(predictions))):
            labels = [choose_label(prediction, bias) for prediction in predictions]
            candidates.append(HardPrompt(template, bias, compute(metric, labels, references)))
    return _best(plain), _best(calibrated)


def evaluate_hard_prompts(
    model: PromptModel,
    task: Task,
    hard_prompts: Sequence[HardPrompt],
    examples: Sequence[Example],
    *,
    batch_size: int = 32,
    run_code: bool = False,
) -> dict[str, Evaluation]:
    """Judge hard prompts by name on examples that did not choose them; a template is run once."""
    runs: dict[Template, tuple[list[Prediction], float]] = {}
    evaluations = {}
    for hard_prompt in hard_prompts:
        template = hard_prompt.template
        if task.kind == "generation":
            plain = replace(task, template=template)
            evaluations[hard_prompt.name] = evaluate(
                model, plain, examples, batch_size=batch_size, run_code=run_code
            )
            continue
        if template not in runs:
            start = time.perf_counter()
            predictions = _predict(model, task, template, examples, batch_size)
            runs[template] = predictions, time.perf_counter() - start
        predictions, seconds = runs[template]
        labels = [choose_label(prediction, hard_prompt.bias) for prediction in predictions]
        evaluations[hard_prompt.name] = judge(task, examples, labels, seconds)
    return evaluations


def _predict(
    model: PromptModel,
    task: Task,
    template: Template,
    examples: Sequence[Example],
    batch_size: int,
) -> list[Prediction]:
    plain = replace(task, template=template)
    return predict_examples(model, plain, examples, batch_size=batch_size)


def _generating(
    model: PromptModel, task: Task, dev: Sequence[Example], batch_size: int, run_code: bool
) -> Iterator[HardPrompt]:
    """The templates of a generation task, judged by the task's first metric."""
    for template in task.hard_templates or (task.template,):
        plain = replace(task, template=template)
        metrics = evaluate(model, plain, dev, batch_size=batch_size, run_code=run_code).metrics
        yield HardPrompt(template, None, next(iter(metrics.values())).value)


def _best(candidates: Iterable[HardPrompt]) -> HardPrompt:
    return max(candidates, key=lambda candidate: candidate.dev_score)


def mean_log_probabilities(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Mean log-probability (multi-label: log-odds) of each label, whatever the text."""
    labels = list(predictions[0].probabilities)
    if predictions[0].labels is not None:
        odds = np.array([[p.scores[label] for label in labels] for p in predictions])
        return dict(zip(labels, odds.mean(axis=0).tolist(), strict=True))
    logs = np.log([[p.probabilities[label] + 1e-12 for label in labels] for p in predictions])
    return dict(zip(labels, logs.mean(axis=0).tolist(), strict=True))


def choose_label(prediction: Prediction, bias: Mapping[str, float] | None) -> str:
    """The most probable label, or that which gains most over its bias; multi-label: all that do."""
    if bias is None:
        return prediction.best
    if prediction.labels is not None:
        gains = {label for label, score in prediction.scores.items() if score > bias[label]}
        return join_labels(gains, list(prediction.scores))
    return max(prediction.scores, key=lambda label: prediction.scores[label] - bias[label])
