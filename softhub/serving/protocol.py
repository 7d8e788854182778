"""What the HTTP application asks of an engine; the built-in one is in `builtin`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from softhub.adapter.adapter import Adapter
from softhub.errors import SoftHubError
from softhub.tasks import Task

if TYPE_CHECKING:  # the plug-in of vLLM shares bodies and errors, and imports no transformers
    from softhub.inference.prediction import Prediction
    from softhub.inference.prefix_cache import MemoryUse
    from softhub.inference.requests import Conversation, Text
    from softhub.inference.streaming import StreamedText


class QueueFull(SoftHubError):
    """The engine's queue is full.

    Args:
        message: What was found and what to do.
        retry_after: Seconds after which there is probably room.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class ServedPrompt:
    """A prompt as it was when a request was accepted; later loads do not change it.

    Attributes:
        name: The name that the request used.
        handle: The engine's own object; None for the bare base.
        task: The prompt's task, if it has one.
    """

    name: str
    handle: Any
    task: Task | None


@dataclass(frozen=True)
class Row:
    """A text and the prompt before it."""

    text: Text | Conversation
    prompt: ServedPrompt


@dataclass(frozen=True)
class Classified:
    """The answer to a row.

    Attributes:
        prediction: Probabilities, and a label or an abstention.
        tokens: Number of tokens of prompt and text.
        truncated: Number of characters that were dropped at the end of the text.
    """

    prediction: Prediction
    tokens: int
    truncated: int


@dataclass(frozen=True)
class Scored:
    """Log-probabilities of a reference text's tokens; other attributes as in `Classified`."""

    logprobs: tuple[float, ...]
    tokens: int
    truncated: int


class Generation(Protocol):
    """Texts of a request as they come; close it when nobody reads it anymore.

    Attributes:
        prompt_tokens: Number of tokens of all prompts and texts, each counted once.
    """

    prompt_tokens: int

    def __aiter__(self) -> AsyncIterator[StreamedText]:
        """Return itself."""

    async def __anext__(self) -> StreamedText:
        """Return new text of one row."""

    def close(self) -> None:
        """Stop the rows that have not ended."""


@dataclass(frozen=True)
class EngineState:
    """How busy an engine is.

    Attributes:
        waiting: Rows in the queue.
        running: Rows that are being answered.
        ready: Whether it accepts rows.
        memory: What it holds for its prompts.
    """

    waiting: int
    running: int
    ready: bool
    memory: MemoryUse


class Engine(Protocol):
    """One base model with any number of prompts.

    Methods raise `TaskError` or `ConfigError` for a row that cannot be answered,
    `TextTooLong` for one that is too long to be continued, and `QueueFull`.
    """

    @property
    def base_name(self) -> str:
        """The base model's canonical name."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """Names of the loaded prompts."""

    def find(self, name: str | None, shown: str) -> ServedPrompt:
        """Return the prompt that is loaded under a name now; None is the bare base."""

    def load(self, name: str, adapter: Adapter, *, force: bool = False) -> None:
        """Load a checked adapter; requests under way keep the prompt that it replaces."""

    def unload(self, name: str) -> None:
        """Unload a prompt; requests under way keep it."""

    async def classify(
        self, rows: Sequence[Row], *, abstain_below: float | None = None
    ) -> list[Classified]:
        """Classify rows, in batches with those of other requests."""

    async def score(self, rows: Sequence[Row], targets: Sequence[str]) -> list[Scored]:
        """Score a reference text after each row."""

    def resolved(self, prompt: ServedPrompt, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options of `generate` with those of the prompt and the base, and defaults."""

    async def generate(
        self,
        rows: Sequence[Row],
        options: Sequence[Mapping[str, Any]],
        *,
        n: int = 1,
        seed: int | None = None,
        logprobs: int | None = None,
    ) -> Generation:
        """Accept rows to continue, each with its options, and return their texts as a stream.

        With `n` answers for each row, text `i * n + j` is answer j of row i.
        """

    def state(self) -> EngineState:
        """Return how busy it is."""

    def close(self) -> None:
        """Answer what was accepted, and stop."""
