"""One row of a call: its text as token ids, the prompt before it, and the requested output."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import torch

from softhub.errors import ConfigError, TaskError, TextTooLong, expected_instead
from softhub.inference.options import Options, resolve_options
from softhub.inference.prefix_cache import PrefixCache, PrefixUse
from softhub.model.base import BaseModel, Placement
from softhub.model.chat import render_messages
from softhub.model.encoding import Candidates, EncodedText, render_chat
from softhub.model.grouping import PreparedPrompt
from softhub.model.kv_cache import Prefix, encode_for_reuse
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Task
from softhub.tasks.decision import ALWAYS_ANSWER, Decision

Text = str | Mapping[str, Any]
"""A text, or a row with a value for each column of the task's template."""

Conversation = list[dict[str, Any]]
"""Messages with `role` and `content`, to which an answer is generated."""


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
        stored: Vectors `[P, H]` in the base's dtype, or the keys and values of a prefix.
        prepared: The task of its manifest, or the one it was loaded with.
        ids: Tokens of which `vectors` are the embeddings; none for a soft prompt.
        prefixes: Where its keys and values are kept; by default as long as the prompt is.
        pinned: Whether they stay whatever the budget.
        use: How often they were found, computed and discarded.
        source: The prompt itself, to prepare it again after the base was moved or cast.
        placement: Device and dtype of the base that `stored` was prepared for.
    """

    stored: torch.Tensor | Prefix
    prepared: PreparedTask | None
    ids: tuple[int, ...] = ()
    prefixes: PrefixCache[LoadedPrompt] = field(default_factory=lambda: PrefixCache(sys.maxsize))
    pinned: bool = False
    use: PrefixUse = field(default_factory=PrefixUse)
    source: SoftPrompt | None = None
    placement: Placement | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def length(self) -> int:
        """Number of virtual tokens P."""
        return self.stored.length if isinstance(self.stored, Prefix) else self.stored.shape[0]

    @property
    def vectors(self) -> torch.Tensor:
        """The input embeddings `[P, H]`.

        Raises:
            ConfigError: It is a prefix, which has none.
        """
        if isinstance(self.stored, Prefix):
            raise ConfigError(
                "A prefix needs cached keys and values, with which rows of this length are not "
                "exact on this base. Shorten the texts, or use a prompt."
            )
        return self.stored

    @classmethod
    def of(
        cls, source: SoftPrompt, base: BaseModel, prepared: PreparedTask | None, **options: Any
    ) -> LoadedPrompt:
        """Prepare a prompt for a base.

        Raises:
            BaseModelError: It is a prefix, and the base cannot run prefixes.
            IncompatiblePrompt: Its numbers are too large for the dtype of the base.
        """
        placement = base.placement  # read first, so that a move meanwhile is noticed later
        stored = source.prepare(base)
        return cls(stored, prepared, source=source, placement=placement, **options)

    def placed_on(self, base: BaseModel) -> LoadedPrompt:
        """Return the same prompt for where the base is now."""
        if self.source is None or self.placement == base.placement:
            return self
        kept = {"prefixes": self.prefixes, "pinned": self.pinned, "use": self.use}
        return self.of(self.source, base, self.prepared, **kept)

    def prefix(self, base: BaseModel) -> Prefix:
        """Return its keys and values, for a base that can share them."""
        if isinstance(self.stored, Prefix):
            return self.stored
        vectors = self.stored
        with self._lock:  # two threads do not compute the same
            return self.prefixes.get(self, lambda: encode_for_reuse(base, vectors))


def is_prefix(prompt: LoadedPrompt | None) -> bool:
    """Return whether a prompt has keys and values only, which cannot run with the text."""
    return prompt is not None and isinstance(prompt.stored, Prefix)


def prefixes_of(base: BaseModel, prompts: Sequence[LoadedPrompt | None]) -> list[Prefix | None]:
    """Return the keys and values of each row's prompt; each prompt is looked up once."""
    found = {prompt: prompt.prefix(base) for prompt in dict.fromkeys(prompts) if prompt}
    return [found[prompt] if prompt else None for prompt in prompts]


def prepared_prompts(
    base: BaseModel, prompts: Sequence[LoadedPrompt | None], *, as_keys: bool
) -> list[PreparedPrompt]:
    """Return each row's prompt as keys and values, or as input embeddings.

    Raises:
        ConfigError: A prefix has no input embeddings.
    """
    if as_keys:
        return [*prefixes_of(base, prompts)]
    return [prompt.vectors if prompt else None for prompt in prompts]


@dataclass(frozen=True, eq=False)
class Request:
    """One row of a call.

    Attributes:
        text: The rendered text.
        prompt: The prompt before it; None for the bare base.
        candidates: Label words, for classification.
        target: Tokens of a reference text to score.
        options: Generation options; only rows with equal options share a batch.
        seed: Where the random numbers of the row start, if it is sampled.
        logprobs: Number of most probable tokens to give with each token that is generated.
        decision: How label scores become an answer.
    """

    text: EncodedText
    prompt: LoadedPrompt | None
    candidates: Candidates | None = None
    target: tuple[int, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    seed: int = 0
    logprobs: int | None = None
    decision: Decision = ALWAYS_ANSWER

    @property
    def length(self) -> int:
        """Number of tokens of prompt and text, P + T."""
        return len(self.text.ids) + (0 if self.prompt is None else self.prompt.length)

    @property
    def shown_ids(self) -> tuple[int, ...]:
        """Tokens that processors of logits see before the answer."""
        return (*(self.prompt.ids if self.prompt else ()), *self.text.ids)

    @property
    def answer(self) -> int:
        """The most tokens that may follow the text."""
        words = [] if self.candidates is None else self.candidates.sequences
        new = int(dict(self.options).get("max_new_tokens") or 0)
        return max(len(self.target), new, *map(len, words))


class RequestEncoder:
    """Turns texts into requests for one base.

    Args:
        base: The base model.
    """

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        self._encoder = base.encoder

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
        self,
        text: Text | Conversation,
        prompt: LoadedPrompt | None,
        fallback: PreparedTask | None,
        *,
        abstain_below: float | None = None,
    ) -> Request:
        """Return a row to classify.

        Args:
            text: The text.
            prompt: The prompt before it.
            fallback: The task for a prompt without one.
            abstain_below: Overrides that of the task.

        Raises:
            TaskError: The row has no task, or a generation task.
        """
        prepared = _task_of(prompt, fallback)
        if prepared is None or prepared.candidates is None:
            raise requires_labels(prepared.task if prepared else None)
        answer = max(map(len, prepared.candidates.sequences))
        room = self._room(prompt, prepared.task, answer)
        encoded = self._encode(prepared.task, text, room)
        decision = prepared.task.decision.abstaining_below(abstain_below)
        return Request(encoded, prompt, prepared.candidates, decision=decision)

    def generation(
        self,
        text: Text | Conversation,
        prompt: LoadedPrompt | None,
        fallback: PreparedTask | None,
        options: Options,
        *,
        truncate: bool = True,
    ) -> Request:
        """Return a row to continue; without a task the text is continued as it is.

        Args:
            text: The text.
            prompt: The prompt before it.
            fallback: The task for a prompt without one.
            options: Options of the call.
            truncate: Whether a text that is too long is truncated; a conversation never is.

        Raises:
            TaskError: The row has columns, but there is no task with a template for them; or it is
                a conversation that the base's chat template rejects.
            TextTooLong: It has too many tokens, and may not be truncated.
            ConfigError: An option is not supported.
        """
        prepared = _task_of(prompt, fallback)
        resolved = resolve_options(
            self._base, prepared.task.generation if prepared else {}, options
        )
        answer = resolved["max_new_tokens"]
        truncate = truncate and not isinstance(text, list)
        task = prepared.task if prepared and not isinstance(text, list) else None
        room = self._room(prompt, task, answer)
        encoded = self._encode_to_continue(task, text, room if truncate else None)
        if not truncate and room is not None and len(encoded.ids) > room:
            raise self._too_long(encoded, room, task, answer)
        return Request(encoded, prompt, options=tuple(sorted(resolved.items())))

    def reference(
        self,
        text: Text | Conversation,
        target: str,
        prompt: LoadedPrompt | None,
        fallback: PreparedTask | None,
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
        room = self._room(prompt, prepared.task, len(tokens))
        encoded = self._encode(prepared.task, text, room)
        return Request(encoded, prompt, target=tokens)

    def _encode_to_continue(
        self, task: Task | None, text: Text | Conversation, room: int | None
    ) -> EncodedText:
        if isinstance(text, list):
            template, row = render_messages(text, self._base.tokenizer)
            return self._encoder.encode(template, row)
        if task is not None:
            return self._encode(task, text, room)
        if isinstance(text, str):
            return self._encoder.encode_plain(text, room)
        raise TaskError(
            f"Found a row with the columns {', '.join(text)}, and a prompt without a task; "
            "expected a text, or load_prompt(…, task=Task.from_file('task.yaml'))."
        )

    def _too_long(
        self, text: EncodedText, room: int, task: Task | None, answer: int
    ) -> TextTooLong:
        """Return an error that names the limit: the task's, or else the base's context."""
        found = f"The text has {len(text.ids)} tokens with its template, and "
        if task is not None and task.max_length == room:
            return TextTooLong(
                f"{found}the task {task.name!r} allows {room} (max_length): shorten the text."
            )
        return TextTooLong(
            f"{found}{room} fit beside the prompt and an answer of up to {answer} tokens in the "
            f"base model's context of {self._base.max_positions}: shorten the text, or ask for "
            "fewer new tokens."
        )

    def _encode(self, task: Task, text: Text | Conversation, room: int | None) -> EncodedText:
        columns = task.template.columns
        if isinstance(text, str) and len(columns) > 1:
            raise TaskError(
                f"The task {task.name} reads {len(columns)} columns ({', '.join(columns)}), and "
                "found a single text. Pass a dict with a value for each column; on the command "
                "line, a file with these columns (--input)."
            )
        if isinstance(text, list):
            raise TaskError("Found a conversation; expected a text, or a row of the template.")
        row = {task.text_column: text} if isinstance(text, str) else text
        return self._encoder.encode(task.template, row, text_column=task.text_column, room=room)

    def _room(self, prompt: LoadedPrompt | None, task: Task | None, answer: int) -> int | None:
        """Return the maximum number of tokens of a text, given its prompt and answer."""
        virtual = 0 if prompt is None else prompt.length
        context = self._base.room_for_text(virtual, answer)
        limits = (task.max_length if task else None, context)
        return min((limit for limit in limits if limit), default=None)


def requires_labels(task: Task | None) -> TaskError:
    """Return the error for classifying with a task that has no labels, or with none."""
    found = "none"
    if task is not None:
        found = f"one of kind {task.kind!r}, for generate (softhub generate)"
    return TaskError(
        f"predict requires a classification task; found {found}. Pass task=Task.from_file"
        "('task.yaml') (--task task.yaml), or use a prompt that has a task."
    )


def is_one(texts: Any) -> TypeGuard[Text]:
    """Return whether texts are a single text or row, which is answered by a single answer."""
    return isinstance(texts, str | Mapping)


def per_row(
    texts: Text | Iterable[Text | Conversation], prompt: str | None | Sequence[str | None]
) -> list[tuple[Text | Conversation, str | None]]:
    """Pair each text with its prompt's name.

    Raises:
        TaskError: There is something else than texts or names, or the number of names is wrong.
    """
    rows: list[Text | Conversation]
    rows = [texts] if is_one(texts) else _listed("texts", texts, str | Mapping | list)
    if prompt is None or isinstance(prompt, str):
        return [(text, prompt) for text in rows]
    names = _listed("prompt", prompt, str | None)
    if len(names) != len(rows):
        raise TaskError(
            f"Found {len(names)} prompts for {len(rows)} texts; expected one name for all texts, "
            "or one for each."
        )
    return list(zip(rows, names, strict=True))


def targets_of(targets: str | Iterable[str]) -> list[str]:
    """Return reference texts as a list.

    Raises:
        TaskError: There is something else than texts.
    """
    return [targets] if isinstance(targets, str) else _listed("targets", targets, str)


def with_seeds(requests: Sequence[Request], seed: Any) -> list[Request]:
    """Give each row a seed that depends on the call's seed and the row's position only.

    Raises:
        ConfigError: `seed` is not an integer.
    """
    if seed is not None and (expected := expected_instead(seed, int)):
        raise ConfigError(f"seed is {seed!r:.80}; expected {expected}, or None.")
    if not any(dict(request.options).get("do_sample") for request in requests):
        return list(requests)
    if seed is None:
        seed = int(torch.randint(2**63 - 1, ()))
    return [replace(request, seed=row_seed(int(seed), row)) for row, request in enumerate(requests)]


def row_seed(seed: int, row: int) -> int:
    """Return the seed of a row of a call."""
    digest = hashlib.sha256(f"{seed} {row}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # within the range of int64


def _listed(argument: str, values: Any, kind: Any) -> list[Any]:
    """Return the values of an argument as a list, all of one kind."""
    expected = {"texts": "texts (str) or rows (dict)", "prompt": "names of prompts, or None"}.get(
        argument, "texts (str)"
    )
    if isinstance(values, bytes) or not isinstance(values, Iterable):
        raise TaskError(f"{argument} is {values!r:.80}; expected a list of {expected}, or one.")
    listed = list(values)
    for place, value in enumerate(listed, start=1):
        if not isinstance(value, kind):
            raise TaskError(
                f"{argument} has {value!r:.80} ({type(value).__name__}) in place {place} of "
                f"{len(listed)}; expected {expected}."
            )
    return listed


def _task_of(prompt: LoadedPrompt | None, fallback: PreparedTask | None) -> PreparedTask | None:
    return prompt.prepared if prompt and prompt.prepared else fallback
