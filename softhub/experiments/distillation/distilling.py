"""`distill`: train a soft prompt to answer as a teacher does.

For labels, the student's probabilities are matched to the teacher's by their Kullback-Leibler
divergence. For texts, the student is trained on the teacher's greedily decoded outputs
(sequence-level distillation; Kim & Rush 2016, arXiv 1606.07947). Neither needs labeled data. If the
teacher is a prompt on the same base, this is prompt compression by context distillation (Askell et
al. 2021, arXiv 2112.00861; Snell et al. 2022, arXiv 2209.15189) into a soft prompt.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

from softhub.errors import SoftHubWarning, TrainingError
from softhub.experiments.distillation.teachers import Teacher
from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Splits, SplitsLike, Task
from softhub.training import FitResult, PromptTrainingArguments, fit
from softhub.training.peft_config import PromptConfig
from softhub.training.provenance import dataset_record


def distill(
    base: BaseModel,
    task: Task,
    config: PromptConfig,
    data: SplitsLike,
    *,
    teacher: Teacher,
    args: PromptTrainingArguments | None = None,
    init: str | SoftPrompt | None = None,
    resume: bool = False,
) -> FitResult:
    """Train a prompt or prefix that makes a base answer as a teacher does, without using labels.

    The best checkpoint is the one closest to the teacher on dev: with the lowest divergence from
    its probabilities, or the lowest loss on its texts. `eval_accuracy` and the task's other metrics
    in the history measure agreement with the teacher.

    Args:
        base: A frozen base from `load_base`.
        task: The student's task, with the template that is retained and the words of the labels.
        config: PEFT's configuration: number of virtual tokens and kind of initialization.
        data: As in `fit`: the train split to learn from, and the dev split that selects the
            checkpoint.
        teacher: The teacher to imitate.
        args: Training arguments.
        init: As in `fit`.
        resume: Resume from the last checkpoint in `args.output_dir`; the teacher answers again.

    Returns:
        The prompt, whose provenance records the teacher, and a summary of training.

    Raises:
        TrainingError: The teacher has other labels, or its texts are empty; as in `fit`.
        TrainingInterrupted: Ctrl-C; a checkpoint was saved.
        TaskError: The teacher cannot answer this task.
    """
    train, dev, _ = task.to_splits(data)
    # Soft labels have a weight of their own, and are matched at temperature 1.
    student = replace(task, class_weights=None, decision=replace(task.decision, temperature=1.0))
    answers = Splits(_answered(task, teacher, train), _answered(task, teacher, dev), [])
    result = fit(
        base, student, config, answers, args=args, init=init, resume=resume, teacher=teacher.source
    )
    manifest = result.prompt.manifest
    provenance = {**manifest.provenance, "dataset": dataset_record(task, train, dev)}
    prompt = replace(result.prompt, manifest=replace(manifest, provenance=provenance))
    return replace(result, prompt=prompt)


def _answered(task: Task, teacher: Teacher, examples: Sequence[Example]) -> list[Example]:
    if task.verbalizer is None:
        return _with_texts(teacher, examples)
    return _with_labels(task, teacher, examples, set(task.verbalizer.labels))


def _with_labels(
    task: Task, teacher: Teacher, examples: Sequence[Example], labels: set[str]
) -> list[Example]:
    answered = []
    for example, answer in zip(examples, teacher.classify(examples), strict=True):
        if set(answer.probabilities) != labels or (answer.labels is not None) != task.multilabel:
            raise TrainingError(
                f"The teacher answers with {', '.join(answer.probabilities)}; expected the labels "
                f"of the task {task.name}: {', '.join(sorted(labels))}."
            )
        soft_label = dict(answer.probabilities)
        answered.append(replace(example, label=answer.best, soft_label=soft_label))
    return answered


def _with_texts(teacher: Teacher, examples: Sequence[Example]) -> list[Example]:
    texts = [text.rstrip() for text in teacher.write(examples)]
    answered = [
        replace(example, target=text)
        for example, text in zip(examples, texts, strict=True)
        if text.strip()
    ]
    if not answered:
        raise TrainingError(
            f"The teacher's answers to all {len(examples)} texts are empty, so there is nothing to "
            "learn from. Change its template, or increase max_new_tokens in the task."
        )
    if len(answered) < len(examples):
        warnings.warn(
            f"The teacher's answers to {len(examples) - len(answered)} of {len(examples)} texts "
            "are empty; these texts are left out.",
            SoftHubWarning,
            stacklevel=4,
        )
    return answered
