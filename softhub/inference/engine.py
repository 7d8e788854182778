"""One frozen base, many prompts: `PromptModel` loads, predicts and generates in mixed batches.

The prompt is an argument of each call, one per row. There is no hidden active adapter, so several
threads can call one model at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from softhub.errors import ConfigError, PromptNotLoaded, TaskError
from softhub.inference.batching import (
    answer_in_batches,
    share_beginning,
    warn_about_truncation,
)
from softhub.inference.continuous import stream_texts
from softhub.inference.generation import generate_texts, reads_text_tokens
from softhub.inference.prediction import Prediction, decide
from softhub.inference.prefix_cache import MemoryUse, PrefixCache, default_budget
from softhub.inference.requests import (
    LoadedPrompt,
    Request,
    RequestEncoder,
    Text,
    per_row,
    per_text,
    prefixes_of,
    seeded,
)
from softhub.inference.streaming import StreamedText
from softhub.model.assembly import pad_rows
from softhub.model.base import BaseModel, load_base
from softhub.model.encoding import Candidates, Encoder
from softhub.model.kv_cache import shares_prefixes
from softhub.model.prompt import SoftPrompt
from softhub.model.scoring import PreparedPrompt, encode_rows, label_scores, target_logprobs
from softhub.tasks import Task

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Prediction", "PromptModel", "Text"]


class PromptModel:
    """A frozen base model with any number of soft prompts.

    Args:
        base: The base model, from `load_base`.
        prefix_budget: Maximum bytes of keys and values of prompts that are kept between calls, by
            default a quarter of the free memory. Others are computed again, with equal answers.

    Examples:
        >>> model = PromptModel.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")
        >>> model.load_prompt("runs/sentiment/adapter", name="mood")
        >>> model.predict(["Broke after two days."], prompt="mood")[0].label
        'negative'
    """

    def __init__(self, base: BaseModel, *, prefix_budget: int | None = None) -> None:
        budget = default_budget(base.device) if prefix_budget is None else prefix_budget
        if budget < 0:
            raise ConfigError(f"prefix_budget is {budget}; expected a number of bytes, 0 or more.")
        self.base = base
        self.encoder = Encoder(base.tokenizer, is_encoder_decoder=base.is_encoder_decoder)
        self.requests = RequestEncoder(base, self.encoder)
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
        """Serve a live PEFT model's prompt tuning adapters, each under its name in PEFT.

        The PEFT model and its base are not changed and can still be used: weights of the base are
        shared, with dropout off here regardless of their mode there, and prompts are copied.

        Args:
            peft_model: A PEFT model whose adapters are all prompt tuning.
            tokenizer: The base model's tokenizer.
            name: Canonical name of the base model, as in `load_base`.

        Raises:
            UnsupportedAdapter: An adapter is of another type.
            BaseModelError: The base is not a language model.

        Examples:
            >>> model = PromptModel.from_peft(peft_model, tokenizer)
            >>> model.generate(["Broke after two days."], prompt="default")
        """
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
            InvalidAdapter: The folder is damaged.
        """
        if isinstance(source, SoftPrompt):
            soft_prompt, default = source, None
        else:
            soft_prompt, default = SoftPrompt.from_pretrained(source), Path(source).name
        soft_prompt.check_fits(self.base, force=force)
        record = soft_prompt.manifest.task
        task = task or (Task.from_record(record) if record else None)
        name = name or (task.name if task else default) or "prompt"
        vectors = soft_prompt.vectors.to(self.base.device, self.base.dtype)  # [P, H]
        prepared = self.requests.prepare(task)
        loaded = LoadedPrompt(vectors, prepared, self._prefixes, pinned=pin)
        with self._lock:  # calls in other threads go on with the mapping they have read
            self._loaded = {**self._loaded, name: loaded}
        return name

    def unload_prompt(self, name: str) -> None:
        """Unload a prompt.

        Raises:
            PromptNotLoaded: No prompt of that name is loaded.
        """
        self.find(name)
        with self._lock:
            self._loaded = {key: value for key, value in self._loaded.items() if key != name}

    def memory(self) -> MemoryUse:
        """Return what the loaded prompts hold: vectors, and keys and values within the budget."""
        loaded, (prefixes, held) = self._loaded, self._prefixes.held()
        return MemoryUse(
            prompts=len(loaded),
            vector_bytes=sum(prompt.vectors.nbytes for prompt in loaded.values()),
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

    def predict(
        self,
        texts: Sequence[Text],
        *,
        prompt: str | None | Sequence[str | None] = None,
        task: Task | None = None,
        abstain_below: float | None = None,
        batch_size: int = 32,
        progress: str | None = None,
    ) -> list[Prediction]:
        """Classify texts, each with its own prompt.

        Args:
            texts: Texts, or rows with a value for each column of the template.
            prompt: Name of a loaded prompt for all texts, or one name for each text; None is the
                bare base.
            task: Task for rows without one, such as those of the bare base.
            abstain_below: Abstain if the answer's probability is lower; None uses the threshold of
                each row's task, 0 always answers.
            batch_size: Texts per batch; does not change the result.
            progress: Description of a progress bar on a terminal; None shows no bar.

        Returns:
            One prediction per text, in the order given.

        Raises:
            PromptNotLoaded: A prompt is not loaded.
            TaskError: A row has no task, or a generation task.
            ConfigError: `abstain_below` is not a probability.
        """
        if abstain_below is not None and not 0 <= abstain_below <= 1:
            raise ConfigError(f"abstain_below is {abstain_below}; expected a number from 0 to 1.")
        fallback = self.requests.prepare(task)
        requests = [
            self.requests.classification(text, found, fallback)
            for text, found in self._rows(texts, prompt)
        ]
        requests = self._share_beginning(requests)
        answer = partial(self.predict_batch, abstain_below=abstain_below)
        return answer_in_batches(requests, batch_size, answer, progress=progress)

    def generate(
        self,
        texts: Sequence[Text],
        *,
        prompt: str | None | Sequence[str | None] = None,
        task: Task | None = None,
        batch_size: int = 8,
        progress: str | None = None,
        **options: Any,
    ) -> list[str]:
        """Continue texts, each with its own prompt.

        A row ends at the end-of-sequence token, before the first of the `stop` strings, or after
        `max_new_tokens`.

        Args:
            texts: Texts, or rows for the template of the row's task. Without a task (the bare
                base, a PEFT adapter) a text is continued as it is. Also conversations, as lists of
                messages with `role` and `content`: the prompt, then the base's chat template.
            prompt: As in `predict`.
            task: Template and generation options for rows without a task.
            batch_size: Texts per batch.
            progress: As in `predict`.
            **options: `stop`, a list of strings, and the options of transformers' `generate`
                (`max_new_tokens`, `num_beams`, …); they override those of the row's task.

        Returns:
            The generated text of each row, in the order given.

        Raises:
            PromptNotLoaded: A prompt is not loaded.
            ConfigError: An option is not supported.
        """
        fallback = self.requests.prepare(task)
        requests = [
            self.requests.generation(text, found, fallback, options)
            for text, found in self._rows(texts, prompt)
        ]
        if not any(reads_text_tokens(self.base, dict(each.options)) for each in requests):
            requests = self._share_beginning(requests)
        return answer_in_batches(requests, batch_size, self._generate_batch, progress=progress)

    def stream(
        self,
        texts: Sequence[Text],
        *,
        prompt: str | None | Sequence[str | None] = None,
        task: Task | None = None,
        batch_size: int = 8,
        n: int = 1,
        seed: int | Sequence[int] | None = None,
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
            seed: Of sampling, for all texts or one for each; answer j uses `seed + j`.
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
        seeds = per_text(seed, len(texts))
        if logprobs is not None:
            options["logprobs"] = logprobs
        requests = [
            self.requests.generation(text, found, fallback, {**options, **seeded(first, answer)})
            for (text, found), first in zip(self._rows(texts, prompt), seeds, strict=True)
            for answer in range(n)
        ]
        warn_about_truncation([request.text for request in requests])
        return stream_texts(self.base, requests, batch_size)

    def target_logprobs(
        self,
        texts: Sequence[Text],
        targets: Sequence[str],
        *,
        prompt: str | None | Sequence[str | None] = None,
        task: Task | None = None,
        batch_size: int = 32,
        progress: str | None = None,
    ) -> list[tuple[float, ...]]:
        """Score reference texts as continuations of texts; training minimizes their negative sum.

        Args:
            texts: As in `predict`, also the other arguments.
            targets: One reference text for each text.
            prompt: Name of a loaded prompt for all texts, or one for each.
            task: Task for rows without one.
            batch_size: Texts per batch.
            progress: Description of a progress bar.

        Returns:
            For each text the log-probabilities of its target's tokens, including the
            end-of-sequence token.

        Raises:
            PromptNotLoaded: A prompt is not loaded.
            TaskError: A row has no task, or the number of targets is wrong.
        """
        rows = self._rows(texts, prompt)
        if len(targets) != len(rows):
            raise TaskError(
                f"Found {len(targets)} targets for {len(rows)} texts; expected one for each text."
            )
        fallback = self.requests.prepare(task)
        requests = [
            self.requests.reference(text, target, found, fallback)
            for (text, found), target in zip(rows, targets, strict=True)
        ]
        requests = self._share_beginning(requests)
        return answer_in_batches(requests, batch_size, self.score_batch, progress=progress)

    # --- prompts of rows ---

    def find(self, name: str | None) -> LoadedPrompt | None:
        """Return a prompt as it is loaded now, whatever is loaded under its name later.

        Raises:
            PromptNotLoaded: No prompt of that name is loaded.
        """
        if name is None:
            return None
        try:
            return self._loaded[name]
        except KeyError:
            loaded = ", ".join(self._loaded) or "none"
            raise PromptNotLoaded(
                f"No prompt {name!r} is loaded (loaded: {loaded}); call load_prompt first."
            ) from None

    def _rows(
        self, texts: Sequence[Text], prompt: str | None | Sequence[str | None]
    ) -> list[tuple[Text, LoadedPrompt | None]]:
        """Pair each text with its prompt; a name is looked up once, so its rows have one prompt."""
        rows = per_row(texts, prompt)
        found = {name: self.find(name) for name in dict.fromkeys(name for _, name in rows)}
        return [(text, found[name]) for text, name in rows]

    @cached_property
    def _shares_prefixes(self) -> bool:
        return shares_prefixes(self.base)

    def _share_beginning(self, requests: list[Request]) -> list[Request]:
        return share_beginning(self.base, requests) if self._shares_prefixes else requests

    def _prepared(self, requests: Sequence[Request]) -> list[PreparedPrompt]:
        """Return each row's prompt as keys and values if the base can share them, else vectors."""
        prompts = [request.prompt for request in requests]
        if self._shares_prefixes:
            return list(prefixes_of(self.base, prompts))
        return [prompt.vectors if prompt else None for prompt in prompts]

    # --- batches ---

    @torch.no_grad()
    def predict_batch(
        self, requests: Sequence[Request], abstain_below: float | None = None
    ) -> list[Prediction]:
        """Classify rows of `requests.classification` as one batch; see `predict`."""
        # All rows share the pass over their texts; label words are scored task by task.
        rows_of: dict[Candidates, list[int]] = {}
        for row, request in enumerate(requests):
            assert request.candidates is not None
            rows_of.setdefault(request.candidates, []).append(row)
        encoded = encode_rows(
            self.base,
            self._prepared(requests),
            pad_rows([request.text.ids for request in requests]),
            keep_cache=any(any(candidates.continuations) for candidates in rows_of),
        )
        predictions: dict[int, Prediction] = {}
        for candidates, rows in rows_of.items():
            part = encoded if len(rows_of) == 1 else encoded.select(rows)
            scores = label_scores(self.base, part, candidates).tolist()  # [rows, labels]
            for row, of_labels in zip(rows, scores, strict=True):
                decision = requests[row].decision
                predictions[row] = decide(candidates, of_labels, decision, abstain_below)
        return [predictions[row] for row in range(len(requests))]

    def _generate_batch(self, requests: Sequence[Request]) -> list[str]:
        prompts = [request.prompt for request in requests]
        texts = [request.text.ids for request in requests]
        return generate_texts(self.base, prompts, texts, dict(requests[0].options))

    @torch.no_grad()
    def score_batch(self, requests: Sequence[Request]) -> list[tuple[float, ...]]:
        """Score rows of `requests.reference` as one batch; see `target_logprobs`."""
        scores = target_logprobs(
            self.base,
            self._prepared(requests),
            pad_rows([request.text.ids for request in requests]),
            pad_rows([request.target for request in requests], side="right"),
        )
        # A decoder's targets end where the rows end; an encoder-decoder's start with the decoder.
        at_end = not self.base.is_encoder_decoder
        return [
            tuple(row[len(row) - len(request.target) :] if at_end else row[: len(request.target)])
            for row, request in zip(scores.tolist(), requests, strict=True)
        ]
