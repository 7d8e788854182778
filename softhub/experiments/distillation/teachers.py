"""Who is imitated: a long prompt on the base itself, another prompt or model, or a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike

from softhub.errors import TaskError, TrainingError
from softhub.evaluation.evaluate import predict_examples
from softhub.evaluation.few_shot import predict_few_shot, written_out
from softhub.evaluation.hard_prompts import mean_log_probabilities
from softhub.inference.engine import Prediction, PromptModel
from softhub.metrics.label_sets import join_labels
from softhub.model.encoding import render_chat
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Task, Template, dataset_hash

Answer = TypeVar("Answer", Prediction, str)


class Teacher(ABC):
    """Answers texts, for a student to imitate; each text is asked once and remembered.

    Args:
        source: What it is, for the manifest: plain values.
    """

    def __init__(self, source: Mapping[str, Any]) -> None:
        self.source = dict(source)
        self._predictions: dict[str, Prediction] = {}
        self._texts: dict[str, str] = {}

    def classify(self, examples: Sequence[Example]) -> list[Prediction]:
        """What it says of the labels of each text."""
        return _asked(self._predictions, examples, self._classify)

    def write(self, examples: Sequence[Example]) -> list[str]:
        """What it writes behind each text.

        Raises:
            TaskError: It only classifies.
        """
        return _asked(self._texts, examples, self._write)

    def tokens_beside(self, example: Example) -> int | None:
        """Tokens that its prompt takes beside the example's text; None where it has no prompt."""
        return None

    @property
    def instruction(self) -> str | None:
        """What it reads before the text, which a student may start from; None if nothing."""
        return None

    @abstractmethod
    def _classify(self, examples: Sequence[Example]) -> list[Prediction]: ...

    def _write(self, examples: Sequence[Example]) -> list[str]:
        raise TaskError(
            f"The teacher ({self.source.get('from')}) only classifies, and the task generates: use "
            "an instruction template, a system text or another prompt as the teacher."
        )


def _asked(
    known: dict[str, Answer],
    examples: Sequence[Example],
    ask: Callable[[Sequence[Example]], list[Answer]],
) -> list[Answer]:
    """The answers that are known, and those of the texts that are not."""
    keys = [_key(example) for example in examples]
    new = {key: one for key, one in zip(keys, examples, strict=True) if key not in known}
    if new:
        known.update(zip(new, ask(list(new.values())), strict=True))
    return [known[key] for key in keys]


def _key(example: Example) -> str:
    return dataset_hash([Example(example.row)])


class ModelTeacher(Teacher):
    """A model, with an instruction, a system text or a soft prompt before the text.

    Args:
        model: The engine of the base; or of another one, whose weights were trained, say.
        task: What it reads: its template, system text and words. Labels are those of the student.
        prompt: A soft prompt before the text; it answers by its own task, if it brings one.
        source: What it is, for the manifest; by default a hard prompt, or the soft prompt.
        batch_size: Texts in one pass.
    """

    def __init__(
        self,
        model: PromptModel,
        task: Task,
        *,
        prompt: SoftPrompt | None = None,
        source: Mapping[str, Any] | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(source or _source(task, prompt))
        self.model, self.task, self.prompt, self.batch_size = model, task, prompt, batch_size
        self._name: str | None = None
        if prompt is not None:
            foreign = task if prompt.manifest.task is None else None
            self._name = model.load_prompt(prompt, name=f"teacher {id(self)}", task=foreign)
            self.task = model.task_of(self._name) or task

    def _classify(self, examples: Sequence[Example]) -> list[Prediction]:
        return predict_examples(
            self.model, self.task, examples, prompt=self._name, batch_size=self.batch_size
        )

    def _write(self, examples: Sequence[Example]) -> list[str]:
        return self.model.generate(
            [example.row for example in examples],
            prompt=self._name,
            task=self.task,
            batch_size=self.batch_size,
            progress="teacher",
        )

    def tokens_beside(self, example: Example) -> int | None:
        """Tokens of its template and virtual tokens."""
        task = render_chat(self.task, self.model.base.tokenizer)
        virtual = self.prompt.num_virtual_tokens if self.prompt else 0
        return virtual + self.model.encoder.tokens_around(
            task.template, example.row, task.text_column
        )

    @property
    def instruction(self) -> str | None:
        """The system text, or what the template says before the text."""
        before, _ = self.task.template.split(self.task.text_column)
        return self.task.system or before.text.strip() or None


def _source(task: Task, prompt: SoftPrompt | None) -> dict[str, Any]:
    if prompt is not None:
        files = {f"sha256 of {name}": digest for name, digest in prompt.manifest.files.items()}
        return {"from": "soft prompt", "virtual_tokens": prompt.num_virtual_tokens, **files}
    system = {"system": task.system} if task.system else {}
    return {"from": "hard prompt", "template": task.template.text, **system}


class FewShotTeacher(Teacher):
    """A base with solved examples before the text.

    Args:
        model: The engine.
        task: A classification task of plain text, with one label each.
        template: The template in which solved examples and texts are written.
        shots: The solved examples, in order; the manifest has their hashes alone.
        batch_size: Texts in one pass.
    """

    def __init__(
        self,
        model: PromptModel,
        task: Task,
        template: Template,
        shots: Sequence[Example],
        *,
        batch_size: int = 32,
    ) -> None:
        if not shots:
            raise TrainingError("There is no solved example to show; check the train split.")
        hashes = [dataset_hash([shot]) for shot in shots]
        super().__init__(
            {
                "from": "few-shot prompt",
                "template": template.text,
                "shots": len(shots),
                "sha256_of_shots": hashes,
            }
        )
        self.model, self.task, self.template = model, task, template
        self.shots, self.batch_size = list(shots), batch_size

    def _classify(self, examples: Sequence[Example]) -> list[Prediction]:
        return predict_few_shot(
            self.model,
            self.task,
            self.template,
            self.shots,
            examples,
            batch_size=self.batch_size,
        )

    def tokens_beside(self, example: Example) -> int | None:
        """Tokens of the solved examples and of the template."""
        encoder, column = self.model.encoder, self.task.text_column
        shown = len(encoder.encode_plain(self.instruction).ids)
        return shown + encoder.tokens_around(self.template, example.row, column)

    @property
    def instruction(self) -> str:
        """The solved examples as they are shown."""
        return written_out(self.task, self.template, self.shots)


class TableTeacher(Teacher):
    """Probabilities that were computed elsewhere, by a fine-tuned model, say.

    Args:
        task: A classification task.
        examples: The texts that the table answers; the student's train and dev texts among them.
        probabilities: Of each label, `[N, labels]`, in the verbalizer's order.
        source: What they come from, for the manifest.

    Raises:
        TaskError: The task generates.
        TrainingError: The table has another shape, or holds no probabilities.
    """

    def __init__(
        self,
        task: Task,
        examples: Sequence[Example],
        probabilities: ArrayLike,
        *,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(source or {"from": "table of probabilities"})
        if task.verbalizer is None:
            raise TaskError("A table of probabilities is for a classification task.")
        labels = task.verbalizer.labels
        table = np.asarray(probabilities, dtype=np.float64)
        _check_table(table, (len(examples), len(labels)), sums=not task.multilabel)
        self._predictions = {
            _key(example): _prediction(labels, row, multilabel=task.multilabel)
            for example, row in zip(examples, table.tolist(), strict=True)
        }

    def _classify(self, examples: Sequence[Example]) -> list[Prediction]:
        raise TrainingError(
            f"The teacher's table lacks {len(examples)} of the texts, {examples[0].text!r:.60} "
            "among them: expected a row for each text of train and dev (and of test, to judge it)."
        )


def _check_table(table: Any, expected: tuple[int, int], *, sums: bool) -> None:
    if table.shape != expected:
        raise TrainingError(
            f"The teacher's table has the shape {list(table.shape)}; expected {list(expected)}: a "
            "row for each text, a column for each label in the verbalizer's order."
        )
    fine = np.isfinite(table) & (table >= 0) & (table <= 1)
    if not fine.all() or (sums and not np.allclose(table.sum(axis=1), 1.0, atol=1e-3)):
        raise TrainingError(
            "The teacher's table holds no probabilities: expected numbers in 0 to 1, which in each "
            "row sum to 1. Take the softmax of scores first."
        )


def _prediction(labels: Sequence[str], row: Sequence[float], *, multilabel: bool) -> Prediction:
    chances = dict(zip(labels, row, strict=True))
    scores = dict(zip(labels, _scores(row, multilabel=multilabel), strict=True))
    if not multilabel:
        return Prediction(max(labels, key=chances.__getitem__), chances, scores)
    applying = tuple(label for label in labels if chances[label] >= 0.5)
    return Prediction(join_labels(applying, labels), chances, scores, labels=applying)


def _scores(row: Sequence[float], *, multilabel: bool) -> list[float]:
    """Logs, or log-odds, kept finite."""
    table = torch.tensor(row, dtype=torch.float64)
    found = table.logit(eps=1e-12) if multilabel else table.clamp_min(1e-12).log()
    scores: list[float] = found.tolist()
    return scores


class CalibratedTeacher(Teacher):
    """A teacher whose liking for some labels, whatever the text, is taken off.

    In the manner of batch calibration (Zhou et al. 2023, arXiv 2309.17249), as in
    `choose_hard_prompts`: the mean log-probability of each label is subtracted. It needs no label,
    and assumes that the texts at hand have all labels about as often.

    Args:
        teacher: The teacher.
        examples: Texts whose mean is taken, the training texts say.
    """

    def __init__(self, teacher: Teacher, examples: Sequence[Example]) -> None:
        self.teacher = teacher
        self.bias = mean_log_probabilities(teacher.classify(examples))
        bias = list(self.bias.values())
        super().__init__({**teacher.source, "calibrated": True, "bias_of_labels": bias})

    def _classify(self, examples: Sequence[Example]) -> list[Prediction]:
        return [self._without_bias(prediction) for prediction in self.teacher.classify(examples)]

    def _without_bias(self, prediction: Prediction) -> Prediction:
        labels, multilabel = list(self.bias), prediction.labels is not None
        chances = [prediction.probabilities[label] for label in labels]
        own = list(prediction.scores.values()) if multilabel else _scores(chances, multilabel=False)
        gains = torch.tensor(own, dtype=torch.float64) - torch.tensor(list(self.bias.values()))
        unbiased = gains.sigmoid() if multilabel else gains.softmax(dim=0)
        return _prediction(labels, unbiased.tolist(), multilabel=multilabel)

    def tokens_beside(self, example: Example) -> int | None:
        """As many as the teacher's."""
        return self.teacher.tokens_beside(example)

    @property
    def instruction(self) -> str | None:
        """The teacher's."""
        return self.teacher.instruction
