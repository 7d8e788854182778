"""One row of a call: its text as token ids, the prompt before it, and the requested output."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from softhub.errors import ConfigError, TaskError
from softhub.inference.prefix_cache import PrefixCache, PrefixUse
from softhub.model.base import BaseModel
from softhub.model.chat import render_messages
from softhub.model.encoding import Candidates, EncodedText, Encoder, render_chat
from softhub.model.kv_cache import Prefix, encode_prefix
from softhub.tasks import Task
from softhub.tasks.decision import ALWAYS_ANSWER, Decision

Text = str | Mapping[str, Any] | list[dict[str, Any]]
"""A text, or a row with a value for each column of the task's template.

To generate, also a conversation: a list of messages with `role` and `content`.
"""

NEW_TOKENS = 64
"""Default of `max_new_tokens`."""


@dataclass(frozen=True, eq=False)
class PreparedTask:
    """A task with its chat rendered and its label words tokenized.

    Attributes:
        task: The task; a system text is rendered into its template.
        candidates: Its label words; None for generation.
    """

    task: Task
    candidates: Candidates | None


@dataclass(eq=False)
class LoadedPrompt:
    """A prompt on the base's device; its keys and values are computed on first use.

    Attributes:
        vectors: `[P, H]` in the base's dtype.
        prepared: The task of its manifest, or the one it was loaded with.
        prefixes: Where its keys and values are kept; by default as long as the prompt is.
        pinned: Whether they stay whatever the budget.
        use: How often they were found, computed and discarded.
    """

    vectors: torch.Tensor
    prepared: PreparedTask | None
    prefixes: PrefixCache[LoadedPrompt] = field(default_factory=lambda: PrefixCache(sys.maxsize))
    pinned: bool = False
    use: PrefixUse = field(default_factory=PrefixUse)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def prefix(self, base: BaseModel) -> Prefix:
        """Return its keys and values, for a base that can share them."""
        with self._lock:  # two threads do not compute the same
            return self.prefixes.get(self, lambda: encode_prefix(base, self.vectors))


def prefixes_of(base: BaseModel, prompts: Sequence[LoadedPrompt | None]) -> list[Prefix | None]:
    """Return the keys and values of each row's prompt; each prompt is looked up once."""
    found = {prompt: prompt.prefix(base) for prompt in dict.fromkeys(prompts) if prompt}
    return [found[prompt] if prompt else None for prompt in prompts]


@dataclass(frozen=True, eq=False)
class Request:
    """One row of a call.

    Attributes:
        text: The rendered text.
        prompt: The prompt before it; None for the bare base.
        candidates: Label words, for classification.
        target: Tokens of a reference text to score.
        options: Generation options; only rows with equal options share a batch.
        decision: How label scores become an answer.
    """

    text: EncodedText
    prompt: LoadedPrompt | None
    candidates: Candidates | None = None
    target: tuple[int, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    decision: Decision = ALWAYS_ANSWER


class RequestEncoder:
    """Turns texts into requests for one base.

    Args:
        base: The base model.
        encoder: Tokenizes texts for it.
    """

    def __init__(self, base: BaseModel, encoder: Encoder) -> None:
        self._base = base
        self._encoder = encoder

    def prepare(self, task: Task | None) -> PreparedTask | None:
        """Render a task's chat and tokenize its label words.

        Raises:
            TaskError: The task does not suit the base's tokenizer.
        """
        if task is None:
            return None
        task = render_chat(task, self._base.tokenizer)
        return PreparedTask(task, self._encoder.candidates_of(task))

    def classification(
        self, text: Text, prompt: LoadedPrompt | None, fallback: PreparedTask | None
    ) -> Request:
        """Return a row to classify; `fallback` is the task for a prompt without one.

        Raises:
            TaskError: The row has no task, or a generation task.
        """
        prepared = _task_of(prompt, fallback)
        if prepared is None or prepared.candidates is None:
            found = "none"
            if prepared is not None:
                found = f"one of kind {prepared.task.kind!r}, for generate (softhub generate)"
            raise TaskError(
                f"predict requires a classification task; found {found}. Pass task=Task.from_file"
                "('task.yaml') (--task task.yaml), or use a prompt that has a task."
            )
        answer = max(map(len, prepared.candidates.sequences))
        encoded = self._encode(prepared.task, text, prompt, answer)
        return Request(encoded, prompt, prepared.candidates, decision=prepared.task.decision)

    def generation(
        self,
        text: Text,
        prompt: LoadedPrompt | None,
        fallback: PreparedTask | None,
        options: Mapping[str, Any],
    ) -> Request:
        """Return a row to continue; without a task the text is continued as it is.

        Raises:
            TaskError: The row has columns, but there is no task with a template for them; or it is
                a conversation that the base's chat template rejects, or that is too long.
        """
        prepared = _task_of(prompt, fallback)
        defaults = prepared.task.generation if prepared else {}
        options = {"max_new_tokens": NEW_TOKENS, **defaults, **options}
        answer = int(options["max_new_tokens"])
        if isinstance(text, list):
            encoded = self._encode_chat(text, self._room(prompt, None, answer))
        elif prepared is not None:
            encoded = self._encode(prepared.task, text, prompt, answer)
        elif isinstance(text, str):
            encoded = self._encoder.encode_plain(text, self._room(prompt, None, answer))
        else:
            raise TaskError(
                f"Found a row with the columns {', '.join(text)}, and a prompt without a task; "
                "expected a text, or load_prompt(…, task=Task.from_file('task.yaml'))."
            )
        return Request(encoded, prompt, options=tuple(sorted(options.items())))

    def reference(
        self, text: Text, target: str, prompt: LoadedPrompt | None, fallback: PreparedTask | None
    ) -> Request:
        """Return a row whose reference text is to be scored, encoded as in training.

        Raises:
            TaskError: The row has no task.
        """
        prepared = _task_of(prompt, fallback)
        if prepared is None:
            raise TaskError(
                "Scoring a reference text requires a task; found none. Pass task=Task.from_file"
                "('task.yaml'), or use a prompt that has a task."
            )
        tokens = self._encoder.target(prepared.task.template, target)
        encoded = self._encode(prepared.task, text, prompt, len(tokens))
        return Request(encoded, prompt, target=tokens)

    def _encode_chat(self, messages: list[dict[str, Any]], room: int | None) -> EncodedText:
        template, row = render_messages(messages, self._base.tokenizer)
        encoded = self._encoder.encode(template, row)
        if room is not None and len(encoded.ids) > room:
            raise TaskError(
                f"The conversation has {len(encoded.ids)} tokens, and {room} fit beside the prompt "
                "and the answer: shorten it, or lower max_new_tokens."
            )
        return encoded

    def _encode(
        self, task: Task, text: Text, prompt: LoadedPrompt | None, answer: int
    ) -> EncodedText:
        if isinstance(text, list):
            raise TaskError("Found a conversation; expected a text, or a row of the template.")
        row = {task.text_column: text} if isinstance(text, str) else text
        room = self._room(prompt, task, answer)
        return self._encoder.encode(task.template, row, text_column=task.text_column, room=room)

    def _room(self, prompt: LoadedPrompt | None, task: Task | None, answer: int) -> int | None:
        """Return the maximum number of tokens of a text, given its prompt and answer."""
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
        TaskError: `texts` is a single text, or the number of names is wrong.
    """
    if isinstance(texts, str | Mapping):
        raise TaskError("Found a single text; expected a list of texts, e.g. [text].")
    names = [prompt] * len(texts) if prompt is None or isinstance(prompt, str) else list(prompt)
    if len(names) != len(texts):
        raise TaskError(
            f"Found {len(names)} prompts for {len(texts)} texts; expected one name for all texts, "
            "or one for each."
        )
    return list(zip(texts, names, strict=True))


def per_text(seed: int | Sequence[int] | None, texts: int) -> list[int | None]:
    """Return a seed for each text.

    Raises:
        ConfigError: The number of seeds is wrong.
    """
    seeds: list[int | None]
    seeds = [seed] * texts if seed is None or isinstance(seed, int) else list(seed)
    if len(seeds) != texts:
        raise ConfigError(
            f"Found {len(seeds)} seeds for {texts} texts; expected one for all texts, or one for "
            "each."
        )
    return seeds


def seeded(seed: int | None, answer: int) -> dict[str, int]:
    """Return the option `seed` of one of the answers to a text."""
    return {} if seed is None else {"seed": seed + answer}


def _task_of(prompt: LoadedPrompt | None, fallback: PreparedTask | None) -> PreparedTask | None:
    return prompt.prepared if prompt and prompt.prepared else fallback
