"""Baselines of a soft prompt: answers without any model, and the base's best hard prompts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from softhub.errors import DatasetError
from softhub.evaluation.evaluate import (
    Evaluation,
    evaluate,
    leading_metric,
    predict_examples,
    score_predictions,
)
from softhub.inference.engine import Prediction, PromptModel
from softhub.metrics import Metric, compute, find_metric
from softhub.metrics.label_sets import join_labels
from softhub.tasks import Example, Task, Template
from softhub.terminal import phase


@dataclass(frozen=True)
class HardPrompt:
    """A template for the bare base, chosen on dev.

    Attributes:
        template: The template.
        bias: Mean log-probability of each label over the dev texts, which is subtracted from the
            scores, or None. A form of batch calibration (Zhou et al. 2023, arXiv 2309.17249),
            which uses the log of the mean instead; neither needs labels.
        dev_score: The value of the task's first metric on dev, by which it was chosen.
    """

    template: Template
    bias: Mapping[str, float] | None
    dev_score: float

    @property
    def name(self) -> str:
        """The name of its row in tables."""
        return "zero-shot, bias-corrected" if self.bias else "zero-shot"


def majority_class(task: Task, train: Sequence[Example], test: Sequence[Example]) -> Evaluation:
    """Evaluate the most frequent label of the training split as the answer to every text.

    Raises:
        DatasetError: There is no example of one of the splits.
    """
    if not train:
        raise DatasetError("There is no training example to count labels in; give at least one.")
    label = Counter(str(example.label) for example in train).most_common(1)[0][0]
    return score_predictions(task, test, [label] * len(test), 0.0)


def trivial_baselines(
    task: Task, train: Sequence[Example], test: Sequence[Example]
) -> dict[str, Evaluation]:
    """Evaluate baselines without a model: the majority label, or the text itself as the answer.

    Copying scores well if answers share words with their texts, as in translation. There is no
    such baseline for metrics that need a model's probabilities or that run code.
    """
    if task.kind == "classification":
        return {"majority label": majority_class(task, train, test)}
    metrics = [name for name in task.metrics if find_metric(name).input_kind in ("answers", "code")]
    if task.metrics and not metrics:
        return {}
    copied = replace(task, metrics=tuple(metrics))
    texts = [example.text for example in test]
    return {"copied text": score_predictions(copied, test, texts, 0.0)}


def choose_hard_prompts(
    model: PromptModel,
    task: Task,
    dev: Sequence[Example],
    *,
    batch_size: int = 32,
    run_code: bool = False,
) -> tuple[HardPrompt, ...]:
    """Choose the best of the task's hard templates on dev.

    A gain over a weak prompt is a gain in format only, so the baselines are the strongest.

    Args:
        model: The engine.
        task: The task; without `hard_templates` its own template is the only candidate.
        dev: The examples to choose on.
        batch_size: Examples per batch.
        run_code: As in `evaluate`.

    Returns:
        The best template and, for a classification, the best one with the label bias removed.

    Raises:
        DatasetError: There is no example to choose on.
    """
    check_dev(dev)
    templates = task.hard_templates or (task.template,)
    with phase("Comparing hard prompts on dev", len(templates), "prompt") as step:
        return _choose(model, task, templates, dev, batch_size, run_code, step)


def check_dev(dev: Sequence[Example]) -> None:
    """Check that there are examples to choose a hard prompt on.

    Raises:
        DatasetError: There are none.
    """
    if not dev:
        raise DatasetError("There is no dev example to choose a hard prompt on; give at least one.")


def _choose(
    model: PromptModel,
    task: Task,
    templates: Sequence[Template],
    dev: Sequence[Example],
    batch_size: int,
    run_code: bool,
    advance: Callable[[int], None],
) -> tuple[HardPrompt, ...]:
    if task.kind == "generation":
        scored = []
        for template in templates:
            scored.append(_generated(model, task, template, dev, batch_size, run_code))
            advance(1)
        return (_best(scored[0][0], [candidate for _, candidate in scored]),)
    metric = leading_metric(task)
    references = [str(example.label) for example in dev]
    plain: list[HardPrompt] = []
    corrected: list[HardPrompt] = []
    for template in templates:
        predictions = _predict(model, task, template, dev, batch_size)
        for candidates, bias in ((plain, None), (corrected, mean_log_probabilities(predictions))):
            labels = [choose_label(prediction, bias) for prediction in predictions]
            score = compute(metric.name, labels, references)
            candidates.append(HardPrompt(template, bias, score))
        advance(1)
    return _best(metric, plain), _best(metric, corrected)


def evaluate_hard_prompts(
    model: PromptModel,
    task: Task,
    hard_prompts: Sequence[HardPrompt],
    examples: Sequence[Example],
    *,
    batch_size: int = 32,
    run_code: bool = False,
) -> dict[str, Evaluation]:
    """Evaluate hard prompts by name; each template runs once.

    Args:
        model: The engine.
        task: The task.
        hard_prompts: The hard prompts, from `choose_hard_prompts`.
        examples: Examples on which they were not chosen.
        batch_size: Examples per batch.
        run_code: As in `evaluate`.
    """
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
        evaluations[hard_prompt.name] = score_predictions(task, examples, labels, seconds)
    return evaluations


def mean_log_probabilities(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Return the mean log-probability (multi-label: log-odds) of each label over all texts."""
    labels = list(predictions[0].probabilities)
    if predictions[0].labels is not None:
        odds = np.array([[p.scores[label] for label in labels] for p in predictions])  # [N, L]
        return dict(zip(labels, odds.mean(axis=0).tolist(), strict=True))
    # Of the scores, like the answers: probabilities have the temperature of the task's decision.
    scores = np.array([[p.scores[label] for label in labels] for p in predictions])  # [N, L]
    shares = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
    return dict(zip(labels, np.log(shares + 1e-12).mean(axis=0).tolist(), strict=True))


def choose_label(prediction: Prediction, bias: Mapping[str, float] | None) -> str:
    """Return the label with the greatest score after the bias; multi-label: all above theirs."""
    if bias is None:
        return prediction.best
    if prediction.labels is not None:
        above = {label for label, score in prediction.scores.items() if score > bias[label]}
        return join_labels(above, list(prediction.scores))
    return max(prediction.scores, key=lambda label: prediction.scores[label] - bias[label])


def _predict(
    model: PromptModel,
    task: Task,
    template: Template,
    examples: Sequence[Example],
    batch_size: int,
) -> list[Prediction]:
    plain = replace(task, template=template)
    return predict_examples(model, plain, examples, batch_size=batch_size)


def _generated(
    model: PromptModel,
    task: Task,
    template: Template,
    dev: Sequence[Example],
    batch_size: int,
    run_code: bool,
) -> tuple[Metric, HardPrompt]:
    """Return a template of a generation task with the first metric that was computed."""
    plain = replace(task, template=template)
    metrics = evaluate(model, plain, dev, batch_size=batch_size, run_code=run_code).metrics
    name, score = next(iter(metrics.items()))
    return find_metric(name), HardPrompt(template, None, score.value)


def _best(metric: Metric, candidates: Sequence[HardPrompt]) -> HardPrompt:
    return max(candidates, key=lambda candidate: metric.goodness(candidate.dev_score))
