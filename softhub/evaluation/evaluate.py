"""Judge a prompt, or the bare base, on examples: scores with intervals, and how long it took."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from softhub.errors import ConfigError, DatasetError, TaskError
from softhub.evaluation.sandbox.runner import Outcome, code_of, confinement, run_programs, tests_of
from softhub.inference.engine import Prediction, PromptModel
from softhub.metrics import find_metric
from softhub.metrics.code import PASSED
from softhub.metrics.intervals import Interval, Resamples, bootstrap_interval
from softhub.tasks import Example, Task

logger = logging.getLogger("softhub")

_HOW_TO_RUN = "run_code=True (recipes: --run_generated_code true; softhub: --run-generated-code)"
_DEFAULT_METRICS = {"classification": ("accuracy",), "generation": ("exact_match",)}


@dataclass(frozen=True)
class Evaluation:
    """Scores of one way of answering on one set of examples.

    Attributes:
        metrics: For each of the task's metrics its value and 95 % interval, resampled by group.
        predictions: Predicted label of each example, or the text that was generated for it.
        references: Right label of each example, or its reference text.
        seconds: Wall time of predicting.
        outcomes: How each generated program ended, if they were run.
        details: Probabilities and scores behind each predicted label.
        programs: The programs that generated texts make, if a metric judges them.
    """

    metrics: Mapping[str, Interval]
    predictions: tuple[str, ...]
    references: tuple[str, ...]
    seconds: float
    outcomes: tuple[Outcome, ...] = ()
    details: tuple[Prediction, ...] = ()
    programs: tuple[str, ...] = ()

    @property
    def examples_per_second(self) -> float:
        """Examples answered per second of wall time."""
        return len(self.references) / max(self.seconds, 1e-9)

    @property
    def correct(self) -> list[bool]:
        """Whether each example was answered right, for paired comparisons."""
        return [a == b for a, b in zip(self.predictions, self.references, strict=True)]


def judge(
    task: Task,
    examples: Sequence[Example],
    predictions: Sequence[str],
    seconds: float,
    *,
    run_code: bool = False,
) -> Evaluation:
    """Score predictions that were made in any way.

    Args:
        task: Names the metrics; without any it is accuracy, or exact match of texts.
        examples: The examples, with their labels or reference texts, and groups.
        predictions: One label or text for each.
        seconds: How long predicting took.
        run_code: Run generated code with its tests, in the sandbox. Without it the metrics that
            need this are left out, which is said.

    Returns:
        The evaluation.

    Raises:
        ConfigError: Code cannot be run here, or without it no metric is left.
    """
    names = metrics_to_take(task, run_code=run_code)
    return _judge(task, names, examples, predictions, seconds)


def metrics_to_take(task: Task, *, run_code: bool) -> tuple[str, ...]:
    """A task's metrics, those that run code only if that is wanted, and can be done.

    Recipes ask before training, so that a run of hours does not end in this error.

    Args:
        task: Names the metrics.
        run_code: Whether generated code is to be run with its tests.

    Returns:
        Names of metrics. Of those that are left out a warning tells.

    Raises:
        ConfigError: Code cannot be run here, or without it no metric is left.
    """
    names = task.metrics or _DEFAULT_METRICS[task.kind]
    runs = [name for name in names if find_metric(name).judges == "outcomes"]
    if not runs:
        return names
    if run_code:
        logger.warning("Generated code is run with %s.", confinement())
        return names
    if len(runs) == len(names):
        raise ConfigError(
            f"{', '.join(runs)}, the only metric of the task {task.name}, runs generated code; "
            f"pass {_HOW_TO_RUN} to run it in the sandbox."
        )
    logger.warning(
        "%s is left out: it runs generated code, which needs %s.", ", ".join(runs), _HOW_TO_RUN
    )
    return tuple(name for name in names if name not in runs)


def _judge(
    task: Task,
    names: Sequence[str],
    examples: Sequence[Example],
    predictions: Sequence[str],
    seconds: float,
) -> Evaluation:
    references = references_of(task, examples)
    pairs = list(zip(examples, predictions, strict=True))
    kinds = {find_metric(name).judges for name in names}
    answers = {"answers": (list(predictions), references)}
    code: list[str] = []
    outcomes: tuple[Outcome, ...] = ()
    if kinds & {"code", "outcomes"}:
        code = [code_of(task, example, answer) for example, answer in pairs]
        answers["code"] = (code, references)
    if "outcomes" in kinds:
        tests = [tests_of(task, example) for example in examples]
        outcomes = tuple(run_programs(list(zip(code, tests, strict=True))))
        answers["outcomes"] = ([outcome.kind for outcome in outcomes], [PASSED] * len(outcomes))
    groups = [example.group for example in examples]
    metrics = {
        name: bootstrap_interval(*answers[find_metric(name).judges], name, groups=groups)
        for name in names
    }
    found = tuple(predictions), tuple(references), seconds, outcomes
    return Evaluation(metrics, *found, programs=tuple(code))


def references_of(task: Task, examples: Sequence[Example]) -> list[str]:
    """The right answers: labels, or reference texts.

    Raises:
        DatasetError: An example has none.
    """
    what = "label" if task.kind == "classification" else "target"
    answers = [getattr(example, what) for example in examples]
    if None in answers:
        raise DatasetError(
            f"Example {answers.index(None) + 1} of {len(answers)} has no {what}, which judging the "
            f"task {task.name} ({task.kind}) needs; load the examples with that task."
        )
    return answers


def evaluate(
    model: PromptModel,
    task: Task,
    examples: Sequence[Example],
    *,
    prompt: str | None = None,
    batch_size: int = 32,
    run_code: bool = False,
    **options: Any,
) -> Evaluation:
    """Predict or generate, and score.

    Args:
        model: The engine.
        task: Template, words and metrics; a prompt that brings its own task answers with that.
        examples: What to answer.
        prompt: Name of a loaded prompt; None judges the bare base with the task's template.
        batch_size: Examples in one pass; does not change the result.
        run_code: As in `judge`.
        **options: For a generation task, as in `PromptModel.generate`.

    Returns:
        The evaluation.

    Raises:
        TaskError: The prompt was made for another kind of task, or other labels.
        ConfigError: There are generation options and the task classifies; or as in `judge`.
    """
    check_task(model, task, prompt)
    names = metrics_to_take(task, run_code=run_code)
    start = time.perf_counter()
    if task.kind == "generation":
        answers = model.generate(
            [example.row for example in examples],
            prompt=prompt,
            task=task,
            batch_size=batch_size,
            progress=prompt or "bare base",
            **options,
        )
    elif options:
        raise ConfigError(f"{', '.join(options)}: the task {task.name} classifies; leave this out.")
    else:
        found = predict_examples(model, task, examples, prompt=prompt, batch_size=batch_size)
        best, seconds = [prediction.best for prediction in found], time.perf_counter() - start
        return replace(_judge(task, names, examples, best, seconds), details=tuple(found))
    return _judge(task, names, examples, answers, time.perf_counter() - start)


def predict_examples(
    model: PromptModel,
    task: Task,
    examples: Sequence[Example],
    *,
    prompt: str | None = None,
    batch_size: int = 32,
) -> list[Prediction]:
    """Predict examples, with a progress bar on a terminal."""
    return model.predict(
        [example.row for example in examples],
        prompt=prompt,
        task=task,
        batch_size=batch_size,
        progress=prompt or "bare base",
    )


@dataclass(frozen=True)
class TargetLoss:
    """How well reference texts are foreseen: the quantity that training minimises.

    Attributes:
        nll: Negative log-likelihood per target token (end-of-sequence token included), in nats,
            with its 95 % interval, resampled by group.
        perplexity: Its exponential.
        tokens: Number of target tokens.
    """

    nll: Interval
    perplexity: Interval
    tokens: int


def target_loss(
    model: PromptModel,
    task: Task,
    examples: Sequence[Example],
    *,
    prompt: str | None = None,
    batch_size: int = 32,
    count_end: bool = True,
) -> TargetLoss:
    """Measure how well a prompt, or the bare base, foresees the reference texts.

    Args:
        model: The engine.
        task: A generation task.
        examples: Texts with their references.
        prompt: Name of a loaded prompt; None judges the bare base with the task's template.
        batch_size: Examples in one pass; does not change the result.
        count_end: Whether the end-of-sequence token counts, as in training. A prompt learns it
            from any texts, so leave it out to measure how well the language itself is known.

    Returns:
        Loss per token and perplexity.

    Raises:
        TaskError: The task, or the prompt's own, classifies.
        DatasetError: There is no example, or one without a reference text.
    """
    if task.kind != "generation":
        raise TaskError(f"The task {task.name} is of kind {task.kind}; expected reference texts.")
    check_task(model, task, prompt)
    scores = model.target_logprobs(
        [example.row for example in examples],
        references_of(task, examples),
        prompt=prompt,
        task=task,
        batch_size=batch_size,
        progress=prompt or "bare base",
    )
    if not count_end:
        scores = [tokens[:-1] for tokens in scores]
    resamples = Resamples(len(examples), [example.group for example in examples])
    sums = np.array([[-math.fsum(tokens), len(tokens)] for tokens in scores])
    nll = resamples.resample([sums], lambda totals: totals[..., 0] / totals[..., 1]).interval()
    return TargetLoss(nll, Interval(*map(math.exp, nll)), sum(map(len, scores)))


def check_task(model: PromptModel, task: Task, prompt: str | None) -> None:
    """Refuse to judge a prompt by a task that asks for other answers than it gives.

    Args:
        model: The engine.
        task: What it is to be judged by.
        prompt: Name of a loaded prompt; None is the bare base, which has no task of its own.

    Raises:
        TaskError: The prompt was made for another kind of task, or has not the task's labels.
    """
    own = model.task_of(prompt) if prompt is not None else None
    if own is None:
        return
    if own.judged_as != task.judged_as:
        raise TaskError(
            f"The prompt {prompt!r} was made for the task {own.name}, of kind {own.judged_as}, and "
            f"{task.name} is of kind {task.judged_as}; evaluate it with a task of its own kind."
        )
    known = own.verbalizer.labels if own.verbalizer else ()
    for label in task.verbalizer.labels if task.verbalizer else ():
        if label not in known:
            raise TaskError(
                f"The task {task.name} has the label {label!r}, which the prompt {prompt!r} never "
                f"gives; its labels are {', '.join(known)}. Rename the task's labels, or map the "
                f"dataset's values to them with label_map."
            )
