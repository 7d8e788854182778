"""One frozen base, many prompts: `PromptModel` loads, predicts and generates in mixed batches.

The prompt is an argument of each call, one per row. There is no hidden active adapter, so several
threads can call one model at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from softhub.errors import ConfigError, InvalidAdapter, PromptNotLoaded, TaskError, require_type
from softhub.inference import batching
from softhub.inference.continuous_batch import stream_texts
from softhub.inference.generation import generate_batch
from softhub.inference.prediction import Prediction
from softhub.inference.prefix_cache import MemoryUse, PrefixCache, default_budget
from softhub.inference.requests import (
    Conversation,
    LoadedPrompt,
    Request,
    RequestEncoder,
    Text,
    is_one,
    per_row,
    targets_of,
    with_seeds,
)
from softhub.inference.scored_batches import predict_batch, score_batch
from softhub.inference.streaming import StreamedText
from softhub.model.base import BaseModel
from softhub.model.kv_cache import shares_prefixes
from softhub.model.loading import load_base
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Task

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Prediction", "PromptModel", "Text"]

_Answer = TypeVar("_Answer")


class PromptModel:
    """A frozen base model with any number of soft prompts.

    Args:
        base: The base model, from `load_base`.
        prefix_budget: Maximum bytes of keys and values of prompts that are kept between calls, by
            default a quarter of the free memory. Others are computed again, with equal answers.

    Examples:
        >>> model = PromptModel.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")
        >>> model.load_prompt("runs/sentiment/adapter", name="mood")
        >>> model.predict("Broke after two days.", prompt="mood").label
        'negative'
    """

    def __init__(self, base: BaseModel, *, prefix_budget: int | None = None) -> None:
        advice = "Load it with load_base, or use PromptModel.from_pretrained."
        require_type("base", base, BaseModel, advice)
        budget = default_budget(base.device) if prefix_budget is None else prefix_budget
        self.base = base
        self.encoder = base.encoder
        self.requests = RequestEncoder(base)
        self._loaded: dict[str, LoadedPrompt] = {}
        self._prefixes: PrefixCache[LoadedPrompt] = PrefixCache(budget)
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls, ref: str | Path, *, prefix_budget: int | None = None, **options: Any
    ) -> PromptModel:
        """Load a base by Hub id, folder or GGUF file; takes the options of `load_base`."""
        return cls(load_base(ref, **options), prefix_budget=prefix_budget)

    @classmethod
    def from_peft(
        cls,
        peft_model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str | None = None,
    ) -> PromptModel:
        """Serve a live PEFT model's prompt and prefix tuning adapters, each under its name in PEFT.

        The PEFT model and its base are not changed and can still be used: weights of the base are
        shared, with dropout off here regardless of their mode there, and prompts are copied.

        Args:
            peft_model: A PEFT model whose adapters are all prompt tuning or prefix tuning.
            tokenizer: The base model's tokenizer.
            name: Canonical name of the base model, as in `load_base`.

        Raises:
            UnsupportedAdapter: An adapter is of another type.
            BaseModelError: The base is not a language model.

        Examples:
            >>> model = PromptModel.from_peft(peft_model, tokenizer)
            >>> model.generate(["Broke after two days."], prompt="default")
        """
        from peft import PeftModel

        advice = "For a model without adapters, use load_base and PromptModel."
        require_type("peft_model", peft_model, PeftModel, advice)
        loaded = cast("PreTrainedModel", peft_model.get_base_model())
        base = load_base(loaded, tokenizer=tokenizer, name=name)
        model = cls(base)
        for adapter_name in peft_model.peft_config:
            prompt = SoftPrompt.from_peft(peft_model, base, adapter_name)
            model.load_prompt(prompt, name=adapter_name)
        return model

    @property
    def prompts(self) -> tuple[str, ...]:
        """Names of the loaded prompts."""
        return tuple(self._loaded)

    def load_prompt(
        self,
        source: SoftPrompt | str | Path,
        *,
        name: str | None = None,
        task: Task | None = None,
        force: bool = False,
        pin: bool = False,
    ) -> str:
        """Load a prompt in addition to those already loaded.

        Args:
            source: An adapter folder (of softhub or plain PEFT) or a `SoftPrompt`.
            name: Name of the prompt in later calls; the default is its task's name, or the
                folder's. A prompt already loaded under that name is replaced.
            task: Task to predict with, for a PEFT adapter without one.
            force: Load it even if it was made for another base of the same width.
            pin: Keep its keys and values, once computed, whatever `prefix_budget` is.

        Returns:
            The name.

        Raises:
            IncompatiblePrompt: The prompt was made for another base.
            BaseModelError: The base cannot run soft prompts, or prefixes if it is one.
            InvalidAdapter: The folder is damaged.
        """
        soft_prompt, default = _opened(source)
        soft_prompt.check_fits(self.base, force=force)
        self.base.capabilities.require_prompts()
        record = soft_prompt.manifest.task
        task = task or (Task.from_record(record) if record else None)
        name = name or (task.name if task else default) or "prompt"
        require_type("name", name, str, "Prompts are named by texts.")
        own, prepared = replace(soft_prompt), self.requests.prepare(task)  # with own vectors
        loaded = LoadedPrompt.of(own, self.base, prepared, prefixes=self._prefixes, pinned=pin)
        with self._lock:  # calls in other threads go on with the mapping they have read
            self._loaded = {**self._loaded, name: loaded}
        return name

    def unload_prompt(self, name: str) -> None:
        """Unload a prompt.

        Raises:
            PromptNotLoaded: No prompt of that name is loaded.
        """
        self._named(name)
        with self._lock:
            self._loaded = {key: value for key, value in self._loaded.items() if key != name}

    def memory(self) -> MemoryUse:
        """Return what the loaded prompts hold: vectors, and keys and values within the budget."""
        loaded, (prefixes, held) = self._loaded, self._prefixes.held()
        return MemoryUse(
            prompts=len(loaded),
            vector_bytes=sum(prompt.stored.nbytes for prompt in loaded.values()),
            prefixes=prefixes,
            prefix_bytes=held,
            prefix_budget=self._prefixes.budget,
            pinned=tuple(name for name, prompt in loaded.items() if prompt.pinned),
            uses={name: prompt.use for name, prompt in loaded.items()},
        )

    def task_of(self, name: str) -> Task | None:
        """Return the task of a loaded prompt, with its chat rendered; None if it has no task.

        Raises:
            PromptNotLoaded: No prompt of that name is loaded.
        """
        loaded = self.find(name)
        return loaded.prepared.task if loaded and loaded.prepared else None

    @overload
    def predict(self, texts: Text, **arguments: Any) -> Prediction: ...

    @overload
    def predict(self, texts: Iterable[Text], **arguments: Any) -> list[Prediction]: ...

    def predict(  # type: ignore[misc]  # the overloads leave out the keywords
        self,
        texts: Text | Iterable[Text],
        *,
        prompt: str | None | Sequence[str | None] = None,
        task: Task | None = None,
        abstain_below: float | None = None,
        batch_size: int = 32,
        progress: str | None = None,
    ) -> Prediction | list[Prediction]:
        """Classify texts, each with its own prompt.

        Args:
            texts: Texts, or rows with a value for each column of the template; or one of these.
            prompt: Name of a loaded prompt for all texts, or one name for each text; None is the
                bare base.
            task: Task for rows without one, such as those of the bare base.
            abstain_below: Abstain if the answer's probability is lower; None uses the threshold of
                each row's task, 0 always answers.
            batch_size: Texts per batch; does not change the result.
            progress: Description of a progress bar on a terminal; None shows no bar.

        Returns:
            One prediction per text, in the order given; for a single text its prediction.

        Raises:
            PromptNotLoaded: A prompt is not loaded.
            TaskError: A row has no task, or a generation task.
            ConfigError: `abstain_below` is not a probability.
        """
        _check_probability("abstain_below", abstain_below)
        fallback = self.requests.prepare(task)
        requests = [
            self.requests.classification(text, found, fallback, abstain_below=abstain_below)
            for text, found in self._rows(texts, prompt)
        ]
        found = self._answered(requests, batch_size, self.predict_batch, progress)
        return found[0] if is_one(texts) else found

    @overload
    def generate(self, texts: Text, **arguments: Any) -> str: ...

    @overload
    def generate(self, texts: Iterable[Text | Conversation], **arguments: Any) -> list[str]: ...

    def generate(
        self,
        texts: Text | Iterable[Text | Conversation],
        *,
        prompt: str | None | Sequence[str | None] = None,
        task: Task | None = None,
        seed: int | None = None,
        batch_size: int = 8,
        progress: str | None = None,
        **options: Any,
    ) -> str | list[str]:
        """Continue texts, each with its own prompt.

        A row ends at the end-of-sequence token, before the first of the `stop` strings, or after
        `max_new_tokens`. Each token is the most probable one, unless the call or the row's task
        sets `do_sample` or `num_beams`; a base whose own generation config samples is no exception.

        Args:
            texts: Texts, or rows for the template of the row's task; or one of these. Without a
                task (the bare base, a PEFT adapter) a text is continued as it is. In the list also
                conversations, as lists of messages with `role` and `content`, which the base's chat
                template renders after the prompt.
            prompt: As in `predict`.
            task: Template and generation options for rows without a task.
            seed: Where the random numbers of `do_sample` start. Each row has its own, which depend
                on the seed and on the row's position in `texts`, and not on `batch_size` or other
                rows. None takes a seed from torch's global generator.
            batch_size: Texts per batch; does not change the result.
            progress: As in `predict`.
            **options: `stop`, a list of strings, and the options of transformers' `generate`
                (`max_new_tokens`, `num_beams`, …), or a `generation_config`, which they override;
                both override the options of the row's task. An option that would make a row depend
                on its neighbors or ignore its prompt is refused.

        Returns:
            The generated text of each row, in the order given; for a single text its own.

        Raises:
            PromptNotLoaded: A prompt is not loaded.
            ConfigError: An option is not supported, or its value is not valid.
        """
        fallback = self.requests.prepare(task)
        requests = [
            self.requests.generation(text, found, fallback, options)
            for text, found in self._rows(texts, prompt)
        ]
        requests = with_seeds(requests, seed)
        found = self._answered(requests, batch_size, partial(generate_batch, self.base), progress)
        return found[0] if is_one(texts) else found

    def stream(
        self,
        texts: Iterable[Text | Conversation],
        *,
        prompt: str | None | Sequence[str | None] = None,
        task: Task | None = None,
        batch_size: int = 8,
        n: int = 1,
        seed: int | None = None,
        logprobs: int | None = None,
        **options: Any,
    ) -> Iterator[StreamedText]:
        """Continue texts as `generate` does, and yield new text of each row as it comes.

        The texts of a row, joined, are what `generate` returns: the possible beginning of a stop
        string and incomplete characters are held back. A base that cannot share prompts, or options
        such as `num_beams`, give each text in one piece.

        Args:
            texts: As in `generate`, also `prompt` and `task`.
            prompt: Name of a loaded prompt for all texts, or one for each.
            task: Task for rows without one.
            batch_size: Maximum number of rows that are continued at a time.
            n: Answers per text; row `i * n + j` is answer j of text i.
            seed: As in `generate`; every row has its own random numbers.
            logprobs: Also yield each token's log-probability, and this many of the most probable.
            **options: As in `generate`.

        Returns:
            An iterator over new texts; the last of each row has a `finish_reason`.

        Raises:
            PromptNotLoaded: A prompt is not loaded.
            ConfigError: An option is not supported.
        """
        if n < 1:
            raise ConfigError(f"n is {n}; expected 1 answer per text, or more.")
        fallback = self.requests.prepare(task)
        requests = [
            replace(self.requests.generation(text, found, fallback, options), logprobs=logprobs)
            for text, found in self._rows(texts, prompt)
            for _ in range(n)
        ]
        requests = with_seeds(requests, seed)
        batching.warn_about_truncation([request.text for request in requests])
        return stream_texts(self.base, requests, batch_size)

    @overload
    def target_logprobs(self, texts: Text, targets: str, **arguments: Any) -> tuple[float, ...]: ...

    @overload
    def target_logprobs(
        self, texts: Iterable[Text], targets: Iterable[str], **arguments: Any
    ) -> list[tuple[float, ...]]: ...

    def target_logprobs(  # type: ignore[misc]
        self,
        texts: Text | Iterable[Text],
        targets: str | Iterable[str],
        *,
        prompt: str | None | Sequence[str | None] = None,
        task: Task | None = None,
        batch_size: int = 32,
        progress: str | None = None,
    ) -> tuple[float, ...] | list[tuple[float, ...]]:
        """Score reference texts as continuations of texts, by the log-probability of each token.

        Args:
            texts: As in `predict`, also the other arguments.
            targets: One reference text for each text; for a single text its own.
            prompt: Name of a loaded prompt for all texts, or one for each.
            task: Task for rows without one.
            batch_size: Texts per batch.
            progress: Description of a progress bar.

        Returns:
            For each text the log-probabilities of its target's tokens, including the
            end-of-sequence token; for a single text one tuple.

        Raises:
            PromptNotLoaded: A prompt is not loaded.
            TaskError: A row has no task, or the number of targets is wrong.
        """
        rows, references = self._rows(texts, prompt), targets_of(targets)
        if len(references) != len(rows) or isinstance(targets, str) != is_one(texts):
            given = "a single target" if isinstance(targets, str) else f"{len(references)} targets"
            wanted = "one text" if is_one(texts) else f"a list of {len(rows)} texts"
            raise TaskError(f"Found {given} for {wanted}; expected one target for each text.")
        fallback = self.requests.prepare(task)
        requests = [
            self.requests.reference(text, target, found, fallback)
            for (text, found), target in zip(rows, references, strict=True)
        ]
        found = self._answered(requests, batch_size, self.score_batch, progress)
        return found[0] if is_one(texts) else found

    # --- prompts of rows ---

    def find(self, name: str | None) -> LoadedPrompt | None:
        """Return a prompt as it is loaded now, whatever is loaded under its name later.

        Raises:
            PromptNotLoaded: No prompt of that name is loaded.
        """
        if name is None:
            return None
        loaded = self._named(name)
        if loaded.placement == self.base.placement:
            return loaded
        with self._lock:  # the base was moved or cast, as training does on a GPU
            loaded = self._named(name).placed_on(self.base)
            self._loaded = {**self._loaded, name: loaded}
        return loaded

    def _named(self, name: str) -> LoadedPrompt:
        try:
            return self._loaded[name]
        except KeyError:
            loaded = ", ".join(self._loaded) or "none"
            raise PromptNotLoaded(
                f"No prompt {name!r} is loaded (loaded: {loaded}); call load_prompt first."
            ) from None

    def _rows(
        self, texts: Text | Iterable[Text | Conversation], prompt: str | None | Sequence[str | None]
    ) -> list[tuple[Text | Conversation, LoadedPrompt | None]]:
        """Pair each text with its prompt; a name is looked up once, so its rows have one prompt."""
        rows = per_row(texts, prompt)
        found = {name: self.find(name) for name in dict.fromkeys(name for _, name in rows)}
        return [(text, found[name]) for text, name in rows]

    def _answered(
        self,
        requests: list[Request],
        size: int,
        answer: Callable[[list[Request]], Sequence[_Answer]],
        progress: str | None,
    ) -> list[_Answer]:
        rounds: dict[LoadedPrompt, int] = {}
        if shares_prefixes(self.base, batching.widest(requests)):
            rounds = self._prefixes.rounds(batching.cached_prompts(requests), self.base)
            requests = batching.share_beginning(self.base, requests)
        return batching.answer_in_batches(requests, size, answer, rounds=rounds, progress=progress)

    # --- batches of requests, which servers form themselves ---

    def predict_batch(self, requests: Sequence[Request]) -> list[Prediction]:
        """Classify rows of `requests.classification` as one batch; see `predict`."""
        return predict_batch(self.base, requests)

    def score_batch(self, requests: Sequence[Request]) -> list[tuple[float, ...]]:
        """Score rows of `requests.reference` as one batch; see `target_logprobs`."""
        return score_batch(self.base, requests)


def _check_probability(name: str, value: Any) -> None:
    if value is not None and not (isinstance(value, Real) and 0 <= float(value) <= 1):
        raise ConfigError(f"{name} is {value!r}; expected a number from 0 to 1.")


def _opened(source: SoftPrompt | str | Path) -> tuple[SoftPrompt, str | None]:
    """Return a prompt, and the name of its folder if it comes from one."""
    if isinstance(source, SoftPrompt):
        return source, None
    if not isinstance(source, str | Path):
        raise InvalidAdapter(
            f"source is {source!r:.80}; expected an adapter folder or a SoftPrompt."
        )
    return SoftPrompt.from_pretrained(source), Path(source).name
