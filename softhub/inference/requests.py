"""One row of a call: its text as token ids, the prompt before it, and what is asked of it.

Rows become batches here too: of like length, and of equal options.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from tqdm.auto import tqdm

from softhub.errors import ConfigError, SoftHubWarning, TaskError
from softhub.model.base import BaseModel
from softhub.model.encoding import Candidates, EncodedText, Encoder, render_chat
from softhub.model.kv_cache import Prefix, encode_prefix
from softhub.tasks import Task
from softhub.tasks.decision import ALWAYS_ANSWER, Decision

Text = str | Mapping[str, Any]
"""A text, or a row with a value for each column of the task's template."""

NEW_TOKENS = 64
"""Most new tokens of an answer if nobody says otherwise."""


@dataclass(frozen=True, eq=False)
class ReadyTask:
    """A task as its rows are fed.

    Attributes:
        task: The task; a system text is written out as a chat.
        candidates: Its label words, for classification.
    """

    task: Task
    candidates: Candidates | None


@dataclass(eq=False)
class LoadedPrompt:
    """A prompt on the base's device; its keys and values are computed when first needed.

    Attributes:
        vectors: `[P, H]` in the base's dtype.
        ready: The task that it brings, or was given.
    """

    vectors: torch.Tensor
    ready: ReadyTask | None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _prefix: Prefix | None = None

    def prefix(self, base: BaseModel) -> Prefix:
        """Its keys and values, for a base that can share them."""
        with self._lock:
            if self._prefix is None:
                self._prefix = encode_prefix(base, self.vectors)
        return self._prefix


@dataclass(frozen=True, eq=False)
class Request:
    """One row of a call.

    Attributes:
        text: The rendered text.
        prompt: The prompt before it; None is the bare base.
        candidates: What it may be classified as.
        decision: How their scores become an answer.
        target: Tokens whose log-probabilities are asked for.
        options: How to generate; only rows of equal options share a batch.
    """

    text: EncodedText
    prompt: LoadedPrompt | None
    candidates: Candidates | None = None
    target: tuple[int, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    decision: Decision = ALWAYS_ANSWER


class RequestEncoder:
    """Makes requests for one base.

    Args:
        base: The base model.
        encoder: Turns its texts into tokens.
    """

    def __init__(self, base: BaseModel, encoder: Encoder) -> None:
        self._base = base
        self._encoder = encoder

    def ready(self, task: Task | None) -> ReadyTask | None:
        """Render a task's chat and tokenise its label words.

        Raises:
            TaskError: The task does not suit the base's tokenizer.
        """
        if task is None:
            return None
        task = render_chat(task, self._base.tokenizer)
        return ReadyTask(task, self._encoder.candidates_of(task))

    def classification(
        self, text: Text, prompt: LoadedPrompt | None, fallback: ReadyTask | None
    ) -> Request:
        """A row to classify; `fallback` is for a prompt that brings no task.

        Raises:
            TaskError: The row has no task, or one that does not classify.
        """
        ready = _task_of(prompt, fallback)
        if ready is None or ready.candidates is None:
            found = "none"
            if ready is not None:
                found = f"of kind {ready.task.kind!r}, which is for generate (softhub generate)"
            raise TaskError(
                f"Classifying needs a classification task; found {found}. Pass task=Task.from_file"
                "('task.yaml') (--task task.yaml), or use a prompt that brings one."
            )
        answer = max(map(len, ready.candidates.sequences))
        encoded = self._encode(ready.task, text, prompt, answer)
        return Request(encoded, prompt, ready.candidates, decision=ready.task.decision)

    def generation(
        self,
        text: Text,
        prompt: LoadedPrompt | None,
        fallback: ReadyTask | None,
        options: Mapping[str, Any],
    ) -> Request:
        """A row to continue; without any task the text is continued as it is.

        Raises:
            TaskError: There is a row of columns, and no template for it.
        """
        ready = _task_of(prompt, fallback)
        defaults = ready.task.generation if ready else {}
        options = {"max_new_tokens": NEW_TOKENS, **defaults, **options}
        answer = int(options["max_new_tokens"])
        if ready is not None:
            encoded = self._encode(ready.task, text, prompt, answer)
        elif isinstance(text, str):
            encoded = self._encoder.encode_plain(text, self._room(prompt, None, answer))
        else:
            raise TaskError(
                f"Found a row with the columns {', '.join(text)}, and a prompt without a task; "
                "expected a text, or load_prompt(…, task=Task.from_file('task.yaml'))."
            )
        return Request(encoded, prompt, options=tuple(sorted(options.items())))

    def reference(
        self, text: Text, target: str, prompt: LoadedPrompt | None, fallback: ReadyTask | None
    ) -> Request:
        """A row whose reference text is to be scored, encoded as for training.

        Raises:
            TaskError: The row has no task.
        """
        ready = _task_of(prompt, fallback)
        if ready is None:
            raise TaskError(
                "Scoring a reference text needs a task; found none. Pass task=Task.from_file"
                "('task.yaml'), or use a prompt that brings one."
            )
        tokens = self._encoder.target(ready.task.template, target)
        encoded = self._encode(ready.task, text, prompt, len(tokens))
        return Request(encoded, prompt, target=tokens)

    def _encode(
        self, task: Task, text: Text, prompt: LoadedPrompt | None, answer: int
    ) -> EncodedText:
        row = {task.text_column: text} if isinstance(text, str) else text
        room = self._room(prompt, task, answer)
        return self._encoder.encode(task.template, row, text_column=task.text_column, room=room)

    def _room(self, prompt: LoadedPrompt | None, task: Task | None, answer: int) -> int | None:
        """Most tokens that a text may have beside its prompt and its answer."""
        limits = [task.max_length] if task and task.max_length else []
        if self._base.max_positions is not None:
            virtual = 0 if prompt is None else prompt.vectors.shape[0]
            limits.append(self._base.max_positions - virtual - answer)
        return min(limits, default=None)


def per_row(
    texts: Sequence[Text], prompt: str | None | Sequence[str | None]
) -> list[tuple[Text, str | None]]:
    """Pair each text with its prompt's name.

    Raises:
        TaskError: There is one text and not a list, or a wrong number of names.
    """
    if isinstance(texts, str | Mapping):
        raise TaskError("Found a single text; expected a list of texts, e.g. [text].")
    names = [prompt] * len(texts) if prompt is None or isinstance(prompt, str) else list(prompt)
    if len(names) != len(texts):
        raise TaskError(
            f"Found {len(names)} prompts for {len(texts)} texts; expected one name for all, or one "
            "for each text."
        )
    return list(zip(texts, names, strict=True))


def batches(
    requests: Sequence[Request], size: int, *, progress: str | None
) -> Iterator[dict[int, Request]]:
    """Rows of like length and equal options together.

    Args:
        requests: All rows of a call.
        size: Most rows of a batch.
        progress: Words beside a progress bar; None shows none.

    Yields:
        Batches, as index → request.

    Raises:
        ConfigError: `size` is not positive.
    """
    if size < 1:
        raise ConfigError(f"batch_size is {size}; expected 1 or more.")
    order = sorted(
        range(len(requests)),
        key=lambda i: (repr(requests[i].options), len(requests[i].text.ids)),
    )
    start = 0
    with _bar(progress, len(order)) as bar:
        while start < len(order):
            options = requests[order[start]].options
            stop = start
            while stop < min(start + size, len(order)) and requests[order[stop]].options == options:
                stop += 1
            yield {index: requests[index] for index in order[start:stop]}
            bar.update(stop - start)
            start = stop


def report_cuts(texts: Sequence[EncodedText]) -> None:
    """Say how many texts were cut, to whoever called the public method."""
    cut = [text.cut for text in texts if text.cut]
    if cut:
        warnings.warn(
            f"{len(cut)} of {len(texts)} texts were too long and lost {sum(cut)} characters at "
            "their end.",
            SoftHubWarning,
            stacklevel=3,
        )


def _task_of(prompt: LoadedPrompt | None, fallback: ReadyTask | None) -> ReadyTask | None:
    return prompt.ready if prompt and prompt.ready else fallback


def _bar(words: str | None, total: int) -> tqdm[NoReturn]:
    """A progress bar on stderr, where that is a terminal and somebody asked for one."""
    return tqdm(total=total, desc=words, unit="text", disable=True if words is None else None)
