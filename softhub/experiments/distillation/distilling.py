"""`distill`: train a soft prompt to answer as a teacher does.

For labels the student's probabilities are matched to the teacher's, by their Kullback-Leibler
divergence. For texts the student learns the teacher's own, written greedily (sequence-level
distillation; Kim & Rush 2016, arXiv 1606.07947). Neither needs a label. Where the teacher is a
prompt on the same base, this is prompt compression by context distillation (Askell et al. 2021,
arXiv 2112.00861; Snell et al. 2022, arXiv 2209.15189) into a soft prompt.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

from peft import PromptTuningConfig

from softhub.errors import SoftHubWarning, TrainingError
from softhub.experiments.distillation.teachers import Teacher
from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Splits, Task
from softhub.training import FitResult, PromptTrainingArguments, fit
from softhub.training.provenance import dataset_record


def distill(
    base: BaseModel,
    task: Task,
    config: PromptTuningConfig,
    *,
    teacher: Teacher,
    train: Sequence[Example],
    dev: Sequence[Example],
    args: PromptTrainingArguments | None = None,
    init: str | SoftPrompt | None = None,
    resume: bool = False,
) -> FitResult:
    """Train a soft prompt that makes a base answer as a teacher does; labels are not looked at.

    The best checkpoint is the one nearest to the teacher on dev: of the lowest divergence from its
    probabilities, or the lowest loss on its texts. What the history calls `eval_accuracy` (and the
    task's other metrics) is agreement with the teacher.

    Args:
        base: A frozen base from `load_base`.
        task: What the student reads: the template that stays, and the words of the labels.
        config: PEFT's configuration: number of virtual tokens and the kind of start.
        teacher: Whom to imitate.
        train: Texts to learn from.
        dev: Texts that choose the checkpoint; never the test split.
        args: Training arguments.
        init: As in `fit`.
        resume: Go on from the last checkpoint in `args.output_dir`; the teacher is asked again.

    Returns:
        The prompt, whose provenance says what it was distilled from, and how training went.

    Raises:
        TrainingError: The teacher does not know the task's labels, or writes nothing; as in `fit`.
        TrainingInterrupted: Ctrl-C; a checkpoint was saved.
        TaskError: The teacher cannot answer this task.
    """
    splits = [_taught(task, teacher, examples) for examples in (train, dev)]
    result = fit(
        base,
        # Soft labels have a weight of their own, and are matched at temperature 1.
        replace(task, class_weights=None, decision=replace(task.decision, temperature=1.0)),
        config,
        Splits(splits[0], splits[1], []),
        args=args,
        init=init,
        resume=resume,
    )
    provenance = {
        **result.prompt.manifest.provenance,
        "dataset": dataset_record(task, train, dev),
        "distilled": teacher.source,
    }
    manifest = replace(result.prompt.manifest, provenance=provenance)
    return replace(result, prompt=replace(result.prompt, manifest=manifest))


def _taught(task: Task, teacher: Teacher, examples: Sequence[Example]) -> list[Example]:
    """The examples with the teacher's answers in place of their own."""
    return (
        _labelled(task, teacher, examples)
        if task.verbalizer is not None
        else _written(teacher, examples)
    )


def _labelled(task: Task, teacher: Teacher, examples: Sequence[Example]) -> list[Example]:
    expected = set(task.verbalizer.labels if task.verbalizer else ())
    taught = []
    for example, said in zip(examples, teacher.classify(examples), strict=True):
        if set(said.probabilities) != expected or (said.labels is not None) != task.multilabel:
            raise TrainingError(
                f"The teacher answers with {', '.join(said.probabilities)}; expected the labels of "
                f"the task {task.name}: {', '.join(sorted(expected))}."
            )
        taught.append(replace(example, label=said.best, soft_label=dict(said.probabilities)))
    return taught


def _written(teacher: Teacher, examples: Sequence[Example]) -> list[Example]:
    texts = [text.rstrip() for text in teacher.write(examples)]
    taught = [
        replace(example, target=text)
        for example, text in zip(examples, texts, strict=True)
        if text.strip()
    ]
    if not taught:
        raise TrainingError(
            f"The teacher wrote nothing behind any of {len(examples)} texts: there is nothing to "
            "learn from it. Change its template, or raise max_new_tokens in the task."
        )
    if len(taught) < len(examples):
        warnings.warn(
            f"The teacher wrote nothing behind {len(examples) - len(taught)} of {len(examples)} "
            "texts; they are left out.",
            SoftHubWarning,
            stacklevel=4,
        )
    return taught
