"""Evaluate a prompt, or the bare base, on examples: scores with intervals, and wall time."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from softhub.errors import ConfigError, DatasetError, TaskError, require_type
from softhub.evaluation.sandbox.runner import Outcome, code_of, confinement, run_programs, tests_of
from softhub.inference.engine import Prediction, PromptModel
from softhub.metrics import Metric, find_metric
from softhub.metrics.code import PASSED
from softhub.metrics.intervals import Interval, bootstrap_interval
from softhub.metrics.label_sets import join_labels
from softhub.tasks import Example, ExampleRows, Task

logger = logging.getLogger("softhub")

_HOW_TO_RUN = "run_code=True (on the command line: --run-generated-code)"
_DEFAULT_METRICS = {"classification": ("accuracy",), "generation": ("exact_match",)}
_TARGETS_AT_ONCE = 8  # every token of a reference text is scored, which takes memory


@dataclass(frozen=True)
class Evaluation:
    """Scores of one way of answering on one set of examples.

    Attributes:
        metrics: The value and 95 % interval of each metric, resampled by group.
        predictions: The predicted label or generated text of each example; empty if the metrics
            need none.
        references: The correct label or reference text of each example.
        seconds: Wall time of the model's work.
        outcomes: Outcome of each generated program, if programs were run.
        details: Probabilities and scores behind each predicted label.
        programs: The programs that the generated texts make, if a metric scores code.
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
        """Examples per second of wall time."""
        return len(self.references) / max(self.seconds, 1e-9)


def evaluate(
    model: PromptModel,
    task: Task,
    examples: ExampleRows,
    *,
    prompt: str | None = None,
    batch_size: int = 32,
    run_code: bool = False,
    **options: Any,
) -> Evaluation:
    """Predict, generate or score reference texts, as the task's metrics need.

    Args:
        model: The engine.
        task: Template, words and metrics; a prompt that has a task uses its own.
        examples: The examples to answer, or their rows (see `Task.to_examples`).
        prompt: Name of a loaded prompt; None evaluates the bare base with the task's template.
        batch_size: Examples per batch; does not change the result.
        run_code: As in `score_predictions`.
        **options: Of a generation task, as in `PromptModel.generate`.

    Raises:
        TaskError: The prompt was made for another kind of task, or for other labels.
        ConfigError: `model` is not a PromptModel; there are generation options for a
            classification; or as in `select_metrics`.
        DatasetError: There are no examples, or one has no label or reference text.
    """
    require_type("model", model, PromptModel, "Make one of a base model: PromptModel(base).")
    check_task(model, task, prompt)
    if options and task.kind != "generation":
        raise ConfigError(
            f"{', '.join(options)}: the task {task.name} is a classification, which has no "
            "generation options."
        )
    examples = task.to_examples(examples)
    names = select_metrics(task, run_code=run_code)
    start = time.perf_counter()
    inputs, details = _answer(model, task, names, examples, prompt, batch_size, options)
    return _score(task, names, examples, inputs, time.perf_counter() - start, details)


def score_predictions(
    task: Task,
    examples: Sequence[Example],
    predictions: Sequence[str],
    seconds: float,
    *,
    run_code: bool = False,
) -> Evaluation:
    """Score predictions from any source.

    Args:
        task: Names the metrics; the default is accuracy, or exact match of generated texts.
        examples: The examples, with their labels or reference texts, and groups.
        predictions: One label or text for each example.
        seconds: Wall time of predicting.
        run_code: Run generated code with its tests in the sandbox. Without it, metrics that need
            this are left out with a warning.

    Raises:
        ConfigError: As in `select_metrics`.
    """
    names = select_metrics(task, run_code=run_code, answers_only=True)
    return _score(task, names, examples, {"answers": list(predictions)}, seconds)


def select_metrics(task: Task, *, run_code: bool, answers_only: bool = False) -> tuple[str, ...]:
    """Return the names of the task's metrics that can be computed.

    Call it before training, so that a run of hours does not end in this error.

    Args:
        task: Names the metrics.
        run_code: Whether generated code is to be run with its tests.
        answers_only: Leave out metrics that need the model's probabilities of reference texts.

    Raises:
        ConfigError: Code cannot be run on this machine, or no metric is left.
    """
    names = task.metrics or _DEFAULT_METRICS[task.kind]
    kinds = {name: find_metric(name).input_kind for name in names}
    if run_code and "outcomes" in kinds.values():
        logger.warning("Generated code is run with %s.", confinement())
    reasons = {}
    if not run_code:
        reasons["outcomes"] = f"runs generated code, which needs {_HOW_TO_RUN}"
    if answers_only:
        reasons["log_probabilities"] = "needs the model's probabilities of the reference texts"
    left_out = {name: reasons[kind] for name, kind in kinds.items() if kind in reasons}
    if len(left_out) == len(names):
        name, reason = next(iter(left_out.items()))
        raise ConfigError(f"{name}, the only metric of the task {task.name}, {reason}.")
    for name, reason in left_out.items():
        logger.warning("%s is left out: it %s.", name, reason)
    return tuple(name for name in names if name not in left_out)


def leading_metric(task: Task) -> Metric:
    """Return the task's first metric, by which templates and thresholds are chosen."""
    return find_metric((task.metrics or _DEFAULT_METRICS[task.kind])[0])


def _answer(
    model: PromptModel,
    task: Task,
    names: Sequence[str],
    examples: Sequence[Example],
    prompt: str | None,
    batch_size: int,
    options: Mapping[str, Any],
) -> tuple[dict[str, Sequence[Any]], Sequence[Prediction]]:
    """Return inputs of metrics by `Metric.input_kind`, and a classification's predictions."""
    kinds = {find_metric(name).input_kind for name in names}
    if task.kind == "classification":
        found = predict_examples(model, task, examples, prompt=prompt, batch_size=batch_size)
        return {"answers": [prediction.best for prediction in found]}, found
    inputs: dict[str, Sequence[Any]] = {}
    rows, progress = [example.row for example in examples], _progress(prompt)
    if kinds != {"log_probabilities"}:
        inputs["answers"] = model.generate(
            rows, prompt=prompt, task=task, batch_size=batch_size, progress=progress, **options
        )
    if "log_probabilities" in kinds:
        inputs["log_probabilities"] = model.target_logprobs(
            rows,
            references_of(task, examples),
            prompt=prompt,
            task=task,
            batch_size=min(batch_size, _TARGETS_AT_ONCE),
            progress=progress,
        )
    return inputs, ()


def _score(
    task: Task,
    names: Sequence[str],
    examples: Sequence[Example],
    inputs: dict[str, Sequence[Any]],
    seconds: float,
    details: Sequence[Prediction] = (),
) -> Evaluation:
    """Compute metrics from their inputs by `Metric.input_kind`; make and run programs if needed."""
    references = references_of(task, examples)
    kinds = {find_metric(name).input_kind for name in names}
    answers = inputs.get("answers", ())
    outcomes: list[Outcome] = []
    if kinds & {"code", "outcomes"}:
        pairs = zip(examples, answers, strict=True)
        inputs["code"] = [code_of(task, example, answer) for example, answer in pairs]
    if "outcomes" in kinds:
        tests = [tests_of(task, example) for example in examples]
        outcomes = run_programs(list(zip(inputs["code"], tests, strict=True)))
        inputs["outcomes"] = [outcome.kind for outcome in outcomes]
    groups = [example.group for example in examples]
    metrics = {}
    for name in names:
        kind = find_metric(name).input_kind
        right = [PASSED] * len(examples) if kind == "outcomes" else references
        metrics[name] = bootstrap_interval(inputs[kind], right, name, groups=groups)
    return Evaluation(
        metrics,
        predictions=tuple(answers),
        references=tuple(references),
        seconds=seconds,
        outcomes=tuple(outcomes),
        details=tuple(details),
        programs=tuple(inputs.get("code", ())),
    )


def references_of(task: Task, examples: Sequence[Example]) -> list[str]:
    """Return the correct answers: labels, or reference texts.

    Raises:
        DatasetError: An example has none.
    """
    what = "label" if task.kind == "classification" else "target"
    answers = [getattr(example, what) for example in examples]
    if None in answers:
        raise DatasetError(
            f"Example {answers.index(None) + 1} of {len(answers)} has no {what}, which the "
            f"evaluation of {task.name} ({task.kind}) needs; load the examples with that task."
        )
    return answers


def predict_examples(
    model: PromptModel,
    task: Task,
    examples: Sequence[Example],
    *,
    prompt: str | None = None,
    batch_size: int = 32,
) -> list[Prediction]:
    """Predict examples with a progress bar; labels are in the order of the task's references."""
    found = model.predict(
        [example.row for example in examples],
        prompt=prompt,
        task=task,
        batch_size=batch_size,
        progress=_progress(prompt),
    )
    if not task.multilabel or task.verbalizer is None:
        return found
    return [_in_order(prediction, task.verbalizer.labels) for prediction in found]


def _in_order(prediction: Prediction, labels: Sequence[str]) -> Prediction:
    """Return a prediction with these labels first; a prompt may list its own in another order."""
    order = dict.fromkeys([*labels, *prediction.scores])
    applying = tuple(label for label in order if label in (prediction.labels or ()))
    return replace(
        prediction,
        best=join_labels(applying, applying),
        probabilities={label: prediction.probabilities[label] for label in order},
        scores={label: prediction.scores[label] for label in order},
        labels=applying,
    )


def _progress(prompt: str | None) -> str:
    return f"Evaluating {prompt or 'the base without a prompt'}"


def check_task(model: PromptModel, task: Task, prompt: str | None) -> None:
    """Check that a prompt can answer a task: same kind, and all labels known.

    Args:
        model: The engine.
        task: The task of the evaluation.
        prompt: Name of a loaded prompt; None is the bare base, which has no task.

    Raises:
        TaskError: The prompt was made for another kind of task, or lacks one of the labels.
    """
    own = model.task_of(prompt) if prompt is not None else None
    if own is None:
        return
    if own.judged_as != task.judged_as:
        raise TaskError(
            f"The prompt {prompt!r} was made for the task {own.name}, of kind {own.judged_as}, and "
            f"{task.name} is of kind {task.judged_as}; evaluate it on a task of the same kind."
        )
    known = own.verbalizer.labels if own.verbalizer else ()
    for label in task.verbalizer.labels if task.verbalizer else ():
        if label not in known:
            raise TaskError(
                f"The task {task.name} has the label {label!r}, which the prompt {prompt!r} does "
                f"not have; its labels are {', '.join(known)}. Rename the task's labels, or map "
                f"the dataset's values to them with label_map."
            )
