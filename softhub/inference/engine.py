"""One frozen base, many prompts: `PromptModel` loads, predicts and generates in mixed batches.

The prompt is an argument of each call, one per row; there is no hidden active adapter, so calls
can run in several threads at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from softhub.errors import (
    ConfigError,
    PromptNotLoaded,
    TaskError,
)
from softhub.inference.generation import generate_texts
from softhub.inference.prediction import Prediction, decide
from softhub.inference.requests import (
    LoadedPrompt,
    Request,
    RequestEncoder,
    Text,
    batches,
    per_row,
    report_cuts,
)
from softhub.model.assembly import pad_rows
from softhub.model.base import BaseModel, load_base
from softhub.model.encoding import Candidates, Encoder
from softhub.model.kv_cache import shares_prefixes
from softhub.model.prompt import SoftPrompt
from softhub.model.scoring import Prompt, encode_rows, label_scores, target_logprobs
from softhub.tasks import Task

__all__ = ["Prediction", "PromptModel", "Text"]


class PromptModel:
    """A frozen base model with any number of soft prompts.

    Args:
        base: The base model, from `load_base`.

    Examples:
        >>> model = PromptModel.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")
        >>> model.load_prompt("runs/sentiment/adapter", name="mood")
        >>> model.predict(["Broke after two days."], prompt="mood")[0].label
        'negative'
    """

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        # Text to token ids. Made here and not on first use, which several threads may share.
        self.encoder = Encoder(base.tokenizer, is_encoder_decoder=base.is_encoder_decoder)
        self._requests = RequestEncoder(base, self.encoder)
        self._loaded: dict[str, LoadedPrompt] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(cls, ref: str | Path, **options: Any) -> PromptModel:
        """Load a base by Hub id, folder or GGUF file; takes the options of `load_base`."""
        return cls(load_base(ref, **options))

    @property
    def prompts(self) -> tuple[str, ...]:
        """Names of the prompts that are loaded."""
        return tuple(self._loaded)

    def load_prompt(
        self,
        source: SoftPrompt | str | Path,
        *,
        name: str | None = None,
        task: Task | None = None,
        force: bool = False,
    ) -> str:
        """Load a prompt beside the others.

        Args:
            source: An adapter folder (softhub's or plain PEFT's) or a `SoftPrompt`.
            name: What calls will name it by; the default is its task's name, or the folder's. A
                prompt that is held under that name is replaced.
            task: Task to predict with, for a foreign adapter that brings none.
            force: Load it even though it was made for another base of the same width.

        Returns:
            The name.

        Raises:
            IncompatiblePrompt: It was made for another base.
            InvalidArtefact: The folder is damaged.
        """
        if isinstance(source, SoftPrompt):
            soft_prompt, default = source, None
        else:
            soft_prompt, default = SoftPrompt.from_pretrained(source), Path(source).name
        soft_prompt.check_fits(self.base, force=force)
        record = soft_prompt.manifest.task
        task = task or (Task.from_record(record) if record else None)
        name = name or (task.name if task else default) or "prompt"
        loaded = LoadedPrompt(
            soft_prompt.vectors.to(self.base.device, self.base.dtype), self._requests.ready(task)
        )
        with self._lock:
            self._loaded = {**self._loaded, name: loaded}
        return name

    def unload_prompt(self, name: str) -> None:
        """Forget a prompt.

        Raises:
            PromptNotLoaded: There is none of that name.
        """
        self._find(name)
        with self._lock:
            self._loaded = {key: value for key, value in self._loaded.items() if key != name}

    def task_of(self, name: str) -> Task | None:
        """The task that a loaded prompt brings or was given, as its rows are fed.

        Raises:
            PromptNotLoaded: There is none of that name.
        """
        loaded = self._find(name)
        return loaded.ready.task if loaded and loaded.ready else None

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
            prompt: Name of a loaded prompt for all texts, or one name (or None for the bare base)
                for each text.
            task: Task for rows whose prompt brings none, such as the bare base.
            abstain_below: Give no answer where its probability is lower; None does what each
                row's task says, 0 always answers.
            batch_size: Texts in one pass; does not change the result.
            progress: Words beside a progress bar, shown on a terminal; None shows no bar.

        Returns:
            One prediction a text, in the order given.

        Raises:
            PromptNotLoaded: A prompt is not loaded.
            TaskError: A row has no task, or one that does not classify.
            ConfigError: `abstain_below` is no probability.
        """
        if abstain_below is not None and not 0 <= abstain_below <= 1:
            raise ConfigError(f"abstain_below is {abstain_below}; expected a number in 0 to 1.")
        fallback = self._requests.ready(task)
        requests = [
            self._requests.classification(text, self._find(name), fallback)
            for text, name in per_row(texts, prompt)
        ]
        report_cuts([request.text for request in requests])
        predictions: dict[int, Prediction] = {}
        for batch in batches(requests, batch_size, progress=progress):
            predictions.update(self._predict_batch(batch, abstain_below))
        return [predictions[index] for index in range(len(requests))]

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

        A row ends at the end-of-sequence token, at the first of the `stop` strings (which is left
        out), or after `max_new_tokens`.

        Args:
            texts: Texts, or rows for the template of the row's task. Without a task (the bare
                base, a foreign adapter) a text is continued as it is.
            prompt: As in `predict`.
            task: Template and generation options for rows whose prompt brings no task.
            batch_size: Texts in one pass.
            progress: As in `predict`.
            **options: `stop`, a list of strings, and those of transformers' `generate`:
                `max_new_tokens`, `num_beams`, …; they override what the row's task says.

        Returns:
            The new text of each row, in the order given.

        Raises:
            PromptNotLoaded: A prompt is not loaded.
            ConfigError: An option makes no sense.
        """
        fallback = self._requests.ready(task)
        requests = [
            self._requests.generation(text, self._find(name), fallback, options)
            for text, name in per_row(texts, prompt)
        ]
        report_cuts([request.text for request in requests])
        answers: dict[int, str] = {}
        for batch in batches(requests, batch_size, progress=progress):
            rows = list(batch.values())
            found = generate_texts(
                self.base,
                [row.prompt for row in rows],
                [row.text.ids for row in rows],
                dict(rows[0].options),
            )
            answers.update(zip(batch, found, strict=True))
        return [answers[index] for index in range(len(requests))]

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
        """Score reference texts behind texts, each with its own prompt; what training minimises.

        Args:
            texts: As in `predict`.
            targets: One reference text for each.
            prompt: As in `predict`.
            task: As in `predict`.
            batch_size: Texts in one pass; does not change the result.
            progress: As in `predict`.

        Returns:
            For each text the log-probability of each of its target's tokens, the end-of-sequence
            token included.

        Raises:
            PromptNotLoaded: A prompt is not loaded.
            TaskError: A row has no task, or there is not one target for each text.
        """
        rows = per_row(texts, prompt)
        if len(targets) != len(rows):
            raise TaskError(
                f"Found {len(targets)} targets for {len(rows)} texts; expected one each."
            )
        fallback = self._requests.ready(task)
        requests = [
            self._requests.reference(text, target, self._find(name), fallback)
            for (text, name), target in zip(rows, targets, strict=True)
        ]
        report_cuts([request.text for request in requests])
        scores: dict[int, tuple[float, ...]] = {}
        for batch in batches(requests, batch_size, progress=progress):
            scores.update(self._score_batch(batch))
        return [scores[index] for index in range(len(requests))]

    # --- what a prompt needs ---

    def _find(self, name: str | None) -> LoadedPrompt | None:
        if name is None:
            return None
        try:
            return self._loaded[name]
        except KeyError:
            held = ", ".join(self._loaded) or "none"
            raise PromptNotLoaded(
                f"No prompt {name!r} is loaded (loaded: {held}); call load_prompt first."
            ) from None

    def _prepared(self, request: Request) -> Prompt:
        """A row's prompt as the passes take it: keys and values if the base can share them."""
        if request.prompt is None:
            return None
        shared = self._shares_prefixes
        return request.prompt.prefix(self.base) if shared else request.prompt.vectors

    @cached_property
    def _shares_prefixes(self) -> bool:
        return shares_prefixes(self.base)

    # --- batches ---

    @torch.no_grad()
    def _predict_batch(
        self, batch: Mapping[int, Request], abstain_below: float | None
    ) -> Iterator[tuple[int, Prediction]]:
        requests = list(batch.values())
        groups: dict[Candidates, list[int]] = {}
        for position, request in enumerate(requests):
            assert request.candidates is not None
            groups.setdefault(request.candidates, []).append(position)
        encoded = encode_rows(
            self.base,
            [self._prepared(request) for request in requests],
            pad_rows([request.text.ids for request in requests]),
            keep_cache=any(any(candidates.continuations) for candidates in groups),
        )
        indices = list(batch)
        results: list[tuple[int, Prediction]] = []
        for candidates, positions in groups.items():
            part = encoded if len(groups) == 1 else encoded.select(positions)
            scores = label_scores(self.base, part, candidates).tolist()
            results += [
                (indices[at], decide(candidates, row, requests[at].decision, abstain_below))
                for at, row in zip(positions, scores, strict=True)
            ]
        return iter(results)

    @torch.no_grad()
    def _score_batch(self, batch: Mapping[int, Request]) -> Iterator[tuple[int, tuple[float, ...]]]:
        requests = list(batch.values())
        scores = target_logprobs(
            self.base,
            [self._prepared(request) for request in requests],
            pad_rows([request.text.ids for request in requests]),
            pad_rows([request.target for request in requests], side="right"),
        )
        # A decoder's targets end where its rows end, an encoder-decoder's begin with the decoder.
        ends = not self.base.is_encoder_decoder
        each = [
            tuple(row[len(row) - len(request.target) :] if ends else row[: len(request.target)])
            for row, request in zip(scores.tolist(), requests, strict=True)
        ]
        return zip(batch, each, strict=True)
