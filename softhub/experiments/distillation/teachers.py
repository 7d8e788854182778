"""Teachers: a long prompt on the base itself, or another prompt or model."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import count
from typing import Any, TypeVar

from softhub.errors import TaskError, TrainingError
from softhub.evaluation.evaluate import predict_examples
from softhub.evaluation.few_shot import predict_few_shot, written_out
from softhub.evaluation.hard_prompts import mean_log_probabilities
from softhub.inference.engine import Prediction, PromptModel
from softhub.inference.prediction import decide
from softhub.model.encoding import Candidates, render_chat
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Task, Template, dataset_hash
from softhub.tasks.decision import Decision
from softhub.terminal import counted, phase

_Answer = TypeVar("_Answer", Prediction, str)
_NUMBERS = count(1)


class Teacher(ABC):
    """Answers texts for a student to imitate; the answer to each text is cached.

    Args:
        source: Description of the teacher for the manifest: plain values.
    """

    def __init__(self, source: Mapping[str, Any]) -> None:
        self.source = dict(source)
        self._predictions: dict[str, Prediction] = {}
        self._texts: dict[str, str] = {}

    def classify(self, examples: Sequence[Example]) -> list[Prediction]:
        """Return the teacher's prediction for each text."""
        return _cached(self._predictions, examples, self._classify)

    def write(self, examples: Sequence[Example]) -> list[str]:
        """Return the text that the teacher generates for each text.

        Raises:
            TaskError: The teacher only classifies.
        """
        return _cached(self._texts, examples, self._write)

    def answer(self, task: Task, examples: Sequence[Example]) -> list[str]:
        """Return the teacher's labels for a classification task, else the texts it generates."""
        if task.kind == "generation":
            return self.write(examples)
        return [prediction.best for prediction in self.classify(examples)]

    def prompt_tokens(self, example: Example) -> int | None:
        """Return the number of tokens that the prompt adds to a text; None without a prompt."""
        return None

    @property
    def instruction(self) -> str | None:
        """The prompt before the text, from which a student can be initialized; None without one."""
        return None

    @abstractmethod
    def _classify(self, examples: Sequence[Example]) -> list[Prediction]: ...

    def _write(self, examples: Sequence[Example]) -> list[str]:
        raise TaskError(
            f"The teacher ({self.source.get('from')}) only classifies, but the task generates "
            "text. Use an instruction template, a system text or another prompt as the teacher."
        )


def _cached(
    known: dict[str, _Answer],
    examples: Sequence[Example],
    answer: Callable[[Sequence[Example]], list[_Answer]],
) -> list[_Answer]:
    keys = [_key(example) for example in examples]
    new = {key: example for key, example in zip(keys, examples, strict=True) if key not in known}
    if new:
        known.update(zip(new, answer(list(new.values())), strict=True))
    return [known[key] for key in keys]


def _asking(examples: Sequence[Example]) -> AbstractContextManager[object]:
    return phase(f"Asking the teacher about {counted(len(examples), 'text')}")


def _key(example: Example) -> str:
    return dataset_hash([Example(example.row)])


def template_tokens(model: PromptModel, task: Task, example: Example) -> int:
    """Return the number of tokens that a task's template adds to an example's text."""
    template = render_chat(task, model.base.tokenizer).template
    return model.encoder.tokens_around(template, example.row, task.text_column)


class ModelTeacher(Teacher):
    """A model with an instruction, a system text or a soft prompt before the text.

    Args:
        model: The engine of the student's base, or of another model, such as a fine-tuned one.
        task: The teacher's task: its template, system text and label words. The labels are those of
            the student's task.
        prompt: A soft prompt before the text; it answers by its own task, if it has one.
        source: Description for the manifest; by default that of the hard prompt or soft prompt.
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
            self._name = model.load_prompt(prompt, name=f"teacher {next(_NUMBERS)}", task=foreign)
            self.task = model.task_of(self._name) or task

    def _classify(self, examples: Sequence[Example]) -> list[Prediction]:
        with _asking(examples):
            return predict_examples(
                self.model, self.task, examples, prompt=self._name, batch_size=self.batch_size
            )

    def _write(self, examples: Sequence[Example]) -> list[str]:
        return self.model.generate(
            [example.row for example in examples],
            prompt=self._name,
            task=self.task,
            batch_size=self.batch_size,
            progress="Asking the teacher",
        )

    def prompt_tokens(self, example: Example) -> int | None:
        """Return the number of tokens of its template and virtual tokens."""
        virtual = self.prompt.num_virtual_tokens if self.prompt else 0
        return virtual + template_tokens(self.model, self.task, example)

    @property
    def instruction(self) -> str | None:
        """The system text, or the words of the template before the text."""
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
        task: A classification task of plain text, with one label for each text.
        template: The template in which solved examples and texts are written.
        shots: The solved examples, in order; the manifest contains only their hashes.
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
            raise TrainingError("There are no solved examples to show; check the train split.")
        hashes = [dataset_hash([shot]) for shot in shots]
        source = {"from": "few-shot prompt", "template": template.text, "shots": len(shots)}
        super().__init__({**source, "sha256_of_shots": hashes})
        self.model, self.task, self.template = model, task, template
        self.shots, self.batch_size = list(shots), batch_size

    def _classify(self, examples: Sequence[Example]) -> list[Prediction]:
        shown = (self.model, self.task, self.template, self.shots)
        with _asking(examples):
            return predict_few_shot(*shown, examples, batch_size=self.batch_size)

    def prompt_tokens(self, example: Example) -> int | None:
        """Return the number of tokens of the solved examples and the template."""
        encoder, column = self.model.encoder, self.task.text_column
        shown = len(encoder.encode_plain(self.instruction).ids)
        return shown + encoder.tokens_around(self.template, example.row, column)

    @property
    def instruction(self) -> str:
        """The solved examples as they are written."""
        return written_out(self.task, self.template, self.shots)


def _log(probability: float) -> float:
    return math.log(max(probability, 1e-12))  # finite for 0


class BiasCorrectedTeacher(Teacher):
    """A teacher with its label prior removed: its preference regardless of the text.

    Following batch calibration (Zhou et al. 2023, arXiv 2309.17249), as in `choose_hard_prompts`,
    the mean log-probability of each label is subtracted. This needs no labels, and assumes that all
    labels are about equally frequent in the texts.

    Args:
        teacher: The teacher.
        examples: Texts over which the mean is taken, such as the training texts.
    """

    def __init__(self, teacher: Teacher, examples: Sequence[Example]) -> None:
        self.teacher = teacher
        self.bias = mean_log_probabilities(teacher.classify(examples))
        bias = list(self.bias.values())
        super().__init__({**teacher.source, "bias_corrected": True, "bias_of_labels": bias})

    def _classify(self, examples: Sequence[Example]) -> list[Prediction]:
        return [self._without_bias(prediction) for prediction in self.teacher.classify(examples)]

    def _without_bias(self, prediction: Prediction) -> Prediction:
        multilabel = prediction.labels is not None
        scores = prediction.scores
        if not multilabel:
            scores = {label: _log(share) for label, share in prediction.probabilities.items()}
        unbiased = [scores[label] - bias for label, bias in self.bias.items()]
        return decide(Candidates(tuple(self.bias), (), (), multilabel), unbiased, Decision())

    def prompt_tokens(self, example: Example) -> int | None:
        """Return the number of tokens of the teacher's prompt."""
        return self.teacher.prompt_tokens(example)

    @property
    def instruction(self) -> str | None:
        """The teacher's instruction."""
        return self.teacher.instruction
