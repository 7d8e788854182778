"""One frozen base, many prompts: `PromptModel` loads, predicts and generates in mixed batches.

The prompt is an argument of each call, one per row. There is no hidden active adapter, so several
threads can call one model at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import torch

from softhub.errors import ConfigError, InvalidAdapter, PromptNotLoaded, TaskError
from softhub.inference.batching import answer_in_batches, share_beginning, widest
from softhub.inference.generation import generate_texts
from softhub.inference.prediction import Prediction, decide
from softhub.inference.requests import (
    LoadedPrompt,
    Request,
    RequestEncoder,
    Text,
    is_one,
    per_row,
    targets_of,
    with_seeds,
)
from softhub.model.assembly import group_rows, pad_rows
from softhub.model.base import BaseModel, load_base
from softhub.model.encoding import Candidates
from softhub.model.grouping import PreparedPrompt
from softhub.model.kv_cache import shares_prefixes
from softhub.model.prompt import SoftPrompt
from softhub.model.scoring import encode_rows, label_scores, target_logprobs
from softhub.tasks import Task

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Prediction", "PromptModel", "Text"]


class PromptModel:
    """A frozen base model with any number of soft prompts.

    Args:
        base: The base model, from `load_base`.

    Examples:
        >>> model = PromptModel.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")
        >>> model.load_prompt("runs/sentiment/adapter", name="mood")
        >>> model.predict("Broke after two days.", prompt="mood").label
        'negative'
    """

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self.encoder = base.encoder
        self._requests = RequestEncoder(base, self.encoder)
        self._loaded: dict[str, LoadedPrompt] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(cls, ref: str | Path, **options: Any) -> PromptModel:
        """Load a base by Hub id, folder or GGUF file; takes the options of `load_base`."""
        return cls(load_base(ref, **options))

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
    ) -> str:
        """Load a prompt in addition to those already loaded.

        Args:
            source: An adapter folder (of softhub or plain PEFT) or a `SoftPrompt`.
            name: Name of the prompt in later calls; the default is its task's name, or the
                folder's. A prompt already loaded under that name is replaced.
            task: Task to predict with, for a PEFT adapter without one.
            force: Load it even if it was made for another base of the same width.

        Returns:
            The name.

        Raises:
            IncompatiblePrompt: The prompt was made for another base.
            BaseModelError: The base cannot have soft prompts.
            InvalidAdapter: The folder is damaged.
            BaseModelError: It is a prefix, and the base cannot run prefixes.
        """
        if not isinstance(source, SoftPrompt | str | Path):
            raise InvalidAdapter(
                f"source is {source!r:.80}; expected an adapter folder or a SoftPrompt."
            )
        if isinstance(source, SoftPrompt):
            soft_prompt, default = source, None
        else:
            soft_prompt, default = SoftPrompt.from_pretrained(source), Path(source).name
        soft_prompt.check_fits(self.base, force=force)
        self.base.capabilities.require_prompts()
        record = soft_prompt.manifest.task
        task = task or (Task.from_record(record) if record else None)
        name = name or (task.name if task else default) or "prompt"
        loaded = LoadedPrompt(soft_prompt.prepare(self.base), self._requests.prepare(task))
        with self._lock:  # calls in other threads go on with the mapping they have read
            self._loaded = {**self._loaded, name: loaded}
        return name

    def unload_prompt(self, name: str) -> None:
        """Unload a prompt.

        Raises:
            PromptNotLoaded: No prompt of that name is loaded.
        """
        self._find(name)
        with self._lock:
            self._loaded = {key: value for key, value in self._loaded.items() if key != name}

    def task_of(self, name: str) -> Task | None:
        """Return the task of a loaded prompt, with its chat rendered; None if it has no task.

        Raises:
            PromptNotLoaded: No prompt of that name is loaded.
        """
        loaded = self._find(name)
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
        least: Any = abstain_below
        if least is not None and not (isinstance(least, Real) and 0 <= float(least) <= 1):
            raise ConfigError(f"abstain_below is {abstain_below!r}; expected a number from 0 to 1.")
        fallback = self._requests.prepare(task)
        requests = [
            self._requests.classification(text, self._find(name), fallback)
            for text, name in per_row(texts, prompt)
        ]
        requests = self._share_beginning(requests)
        answer = partial(self._predict_batch, abstain_below=abstain_below)
        found = answer_in_batches(requests, batch_size, answer, progress=progress)
        return found[0] if is_one(texts) else found

    @overload
    def generate(self, texts: Text, **arguments: Any) -> str: ...

    @overload
    def generate(self, texts: Iterable[Text], **arguments: Any) -> list[str]: ...

    def generate(
        self,
        texts: Text | Iterable[Text],
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
                task (the bare base, a PEFT adapter) a text is continued as it is.
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
        fallback = self._requests.prepare(task)
        requests = [
            self._requests.generation(text, self._find(name), fallback, options)
            for text, name in per_row(texts, prompt)
        ]
        requests = with_seeds(self._share_beginning(requests), seed)
        found = answer_in_batches(requests, batch_size, self._generate_batch, progress=progress)
        return found[0] if is_one(texts) else found

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
        """Score reference texts as continuations of texts; training minimizes their negative sum.

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
        rows, references = per_row(texts, prompt), targets_of(targets)
        if len(references) != len(rows) or isinstance(targets, str) != is_one(texts):
            given = "a single target" if isinstance(targets, str) else f"{len(references)} targets"
            wanted = "one text" if is_one(texts) else f"a list of {len(rows)} texts"
            raise TaskError(f"Found {given} for {wanted}; expected one target for each text.")
        fallback = self._requests.prepare(task)
        requests = [
            self._requests.reference(text, target, self._find(name), fallback)
            for (text, name), target in zip(rows, references, strict=True)
        ]
        requests = self._share_beginning(requests)
        found = answer_in_batches(requests, batch_size, self._score_batch, progress=progress)
        return found[0] if is_one(texts) else found

    # --- prompts of rows ---

    def _find(self, name: str | None) -> LoadedPrompt | None:
        if name is None:
            return None
        try:
            return self._loaded[name]
        except KeyError:
            loaded = ", ".join(self._loaded) or "none"
            raise PromptNotLoaded(
                f"No prompt {name!r} is loaded (loaded: {loaded}); call load_prompt first."
            ) from None

    def _share_beginning(self, requests: list[Request]) -> list[Request]:
        if shares_prefixes(self.base, widest(requests)):
            return share_beginning(self.base, requests)
        return requests

    def _prepared(self, requests: Sequence[Request]) -> list[PreparedPrompt]:
        """Return each row's prompt as keys and values if the base can share them, else vectors."""
        prompts = [request.prompt for request in requests]
        if not any(prompts):
            return [None] * len(prompts)
        shared = shares_prefixes(self.base, widest(requests))
        return [
            None if prompt is None else prompt.prefix(self.base) if shared else prompt.vectors
            for prompt in prompts
        ]

    # --- batches ---

    @torch.no_grad()
    def _predict_batch(
        self, requests: Sequence[Request], abstain_below: float | None
    ) -> list[Prediction]:
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
        prompted = any(request.prompt for request in requests)
        lengths = [request.length for request in requests]
        answers = self.base.capabilities.texts(min(lengths), widest(requests), prompted=prompted)
        texts: dict[int, str] = {}
        for group in group_rows(lengths, answers.batching):
            part = [requests[row] for row in group]
            found = generate_texts(
                self.base,
                [request.prompt for request in part],
                [request.text.ids for request in part],
                dict(part[0].options),
                [request.seed for request in part],
                from_cache=answers.from_cache,
            )
            texts.update(zip(group, found, strict=True))
        return [texts[row] for row in range(len(requests))]

    @torch.no_grad()
    def _score_batch(self, requests: Sequence[Request]) -> list[tuple[float, ...]]:
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
