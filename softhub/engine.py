"""One frozen base, many prompts: `PromptModel` loads, predicts and generates in mixed batches.

The prompt is an argument of each call, one per row; there is no hidden active adapter, so calls
can run in several threads at once.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import torch
from tqdm.auto import tqdm
from transformers.modeling_outputs import BaseModelOutput

from softhub.assembly import embed_rows, pad_rows
from softhub.base import BaseModel, load_base
from softhub.encoding import Candidates, EncodedText, Encoder, render_chat
from softhub.errors import (
    ConfigError,
    IncompatiblePrompt,
    PromptNotLoaded,
    SoftHubWarning,
    TaskError,
)
from softhub.fingerprint import compare_fingerprints
from softhub.kv_cache import encode_prefix, shares_prefixes
from softhub.prompt import SoftPrompt
from softhub.scoring import Prompt, encode_rows, label_scores
from softhub.tasks import Task

Text = str | Mapping[str, Any]
"""A text, or a row with a value for each column of the task's template."""

_NEW_TOKENS = 64


@dataclass(frozen=True)
class Prediction:
    """What a classification prompt says of one text.

    Attributes:
        label: The most probable label.
        probabilities: Softmax of the scores over the labels, in the verbalizer's order.
        scores: Log-probability of each label's words behind the text.
    """

    label: str
    probabilities: Mapping[str, float]
    scores: Mapping[str, float]


@dataclass(eq=False)
class _Loaded:
    """A prompt on the base's device; its keys and values are computed when first needed."""

    vectors: torch.Tensor
    task: Task | None
    candidates: Candidates | None
    lock: threading.Lock = field(default_factory=threading.Lock)
    prefix: Prompt = None


@dataclass(frozen=True, eq=False)
class _Request:
    """One row of a call."""

    text: EncodedText
    prompt: _Loaded | None
    candidates: Candidates | None = None
    options: tuple[tuple[str, Any], ...] = ()


class PromptModel:
    """A frozen base model with any number of soft prompts.

    Args:
        base: The base model, from `load_base`.

    Example:
        >>> model = PromptModel.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")
        >>> model.load_prompt("runs/sentiment/adapter", name="mood")
        >>> model.predict(["Broke after two days."], prompt="mood")[0].label
        'negative'
    """

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        # Text to token ids. Made here and not on first use, which several threads may share.
        self.encoder = Encoder(base.tokenizer, is_encoder_decoder=base.is_encoder_decoder)
        self._loaded: dict[str, _Loaded] = {}
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
        self._check_fits(soft_prompt, force=force)
        record = soft_prompt.manifest.task
        task = self._rendered(task or (Task.from_record(record) if record else None))
        name = name or (task.name if task else default) or "prompt"
        loaded = _Loaded(
            soft_prompt.vectors.to(self.base.device, self.base.dtype),
            task,
            self._candidates(task),
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

    def predict(
        self,
        texts: Sequence[Text],
        *,
        prompt: str | None | Sequence[str | None] = None,
        task: Task | None = None,
        batch_size: int = 32,
        progress: str | None = None,
    ) -> list[Prediction]:
        """Classify texts, each with its own prompt.

        Args:
            texts: Texts, or rows with a value for each column of the template.
            prompt: Name of a loaded prompt for all texts, or one name (or None for the bare base)
                for each text.
            task: Task for rows whose prompt brings none, such as the bare base.
            batch_size: Texts in one pass; does not change the result.
            progress: Words beside a progress bar, shown on a terminal; None shows no bar.

        Returns:
            One prediction a text, in the order given.

        Raises:
            PromptNotLoaded: A prompt is not loaded.
            TaskError: A row has no task, or one that does not classify.
        """
        task = self._rendered(task)
        fallback = (task, self._candidates(task))
        requests = [
            self._classification(text, self._find(name), fallback)
            for text, name in _per_row(texts, prompt)
        ]
        _report_cuts(requests)
        predictions: dict[int, Prediction] = {}
        with _bar(progress, len(requests)) as bar:
            for batch in _batches(requests, batch_size):
                predictions.update(self._predict_batch(batch))
                bar.update(len(batch))
        return [predictions[index] for index in range(len(requests))]

    def generate(
        self,
        texts: Sequence[Text],
        *,
        prompt: str | None | Sequence[str | None] = None,
        batch_size: int = 8,
        progress: str | None = None,
        **options: Any,
    ) -> list[str]:
        """Continue texts, each with its own prompt.

        Args:
            texts: Texts, or rows for the template of the prompt's task. Without a task (the bare
                base, a foreign adapter) a text is continued as it is.
            prompt: As in `predict`.
            batch_size: Texts in one pass.
            progress: As in `predict`.
            **options: As in `transformers` `generate`: `max_new_tokens`, `num_beams`, …; they
                override what the prompt's task says.

        Returns:
            The new text of each row, in the order given.

        Raises:
            PromptNotLoaded: A prompt is not loaded.
        """
        requests = [
            self._generation(text, self._find(name), options)
            for text, name in _per_row(texts, prompt)
        ]
        _report_cuts(requests)
        answers: dict[int, str] = {}
        with _bar(progress, len(requests)) as bar:
            for batch in _batches(requests, batch_size):
                answers.update(self._generate_batch(batch))
                bar.update(len(batch))
        return [answers[index] for index in range(len(requests))]

    # --- what a prompt needs ---

    def _check_fits(self, soft_prompt: SoftPrompt, *, force: bool) -> None:
        manifest, base = soft_prompt.manifest, self.base
        made_for = f"This prompt was made for {manifest.base_model}"
        width = soft_prompt.vectors.shape[1]
        if width != base.hidden_size or manifest.task_type != base.task_type:
            raise IncompatiblePrompt(
                f"{made_for} (width {width}, {manifest.task_type}) and cannot run on {base.name} "
                f"(width {base.hidden_size}, {base.task_type}): load the base it was made for."
            )
        verdict = compare_fingerprints(manifest.fingerprint, base.fingerprint)
        message = f"{made_for}; the base at hand is {base.name}: {verdict.reason}."
        if verdict.kind == "different" and not force:
            raise IncompatiblePrompt(f"{message} Load that base, or pass force=True (--force).")
        if verdict.kind != "exact":
            warnings.warn(message, SoftHubWarning, stacklevel=3)

    def _rendered(self, task: Task | None) -> Task | None:
        """A task as its texts are fed: a system text makes it a chat."""
        return None if task is None else render_chat(task, self.base.tokenizer)

    def _candidates(self, task: Task | None) -> Candidates | None:
        if task is None or task.verbalizer is None:
            return None
        return self.encoder.candidates(task.template, task.verbalizer)

    def _find(self, name: str | None) -> _Loaded | None:
        if name is None:
            return None
        try:
            return self._loaded[name]
        except KeyError:
            held = ", ".join(self._loaded) or "none"
            raise PromptNotLoaded(
                f"No prompt {name!r} is loaded (loaded: {held}); call load_prompt first."
            ) from None

    def _prepared(self, prompt: _Loaded | None) -> Prompt:
        """A prompt as the passes take it: its keys and values if the base can share them."""
        if prompt is None or not self._shares_prefixes:
            return None if prompt is None else prompt.vectors
        with prompt.lock:
            if prompt.prefix is None:
                prompt.prefix = encode_prefix(self.base, prompt.vectors)
        return prompt.prefix

    @cached_property
    def _shares_prefixes(self) -> bool:
        return shares_prefixes(self.base)

    # --- rows ---

    def _room(self, prompt: _Loaded | None, task: Task | None, answer: int) -> int | None:
        """Most tokens that a text may have beside its prompt and its answer."""
        limits = [task.max_length] if task and task.max_length else []
        if self.base.max_positions is not None:
            virtual = 0 if prompt is None else prompt.vectors.shape[0]
            limits.append(self.base.max_positions - virtual - answer)
        return min(limits, default=None)

    def _classification(
        self,
        text: Text,
        prompt: _Loaded | None,
        fallback: tuple[Task | None, Candidates | None],
    ) -> _Request:
        task, candidates = (prompt.task, prompt.candidates) if prompt and prompt.task else fallback
        if task is None or candidates is None:
            found = f"of kind {task.kind!r}" if task else "none"
            raise TaskError(
                f"Classifying needs a classification task; found {found}. Pass task=Task.from_file"
                "('task.yaml') (--task task.yaml), or use a prompt that brings one."
            )
        answer = max(map(len, candidates.sequences))
        encoded = self._encode(task, text, self._room(prompt, task, answer))
        return _Request(encoded, prompt, candidates)

    def _generation(
        self, text: Text, prompt: _Loaded | None, options: Mapping[str, Any]
    ) -> _Request:
        task = prompt.task if prompt else None
        options = {
            "max_new_tokens": _NEW_TOKENS,
            **(task.generation if task else {}),
            **options,
        }
        room = self._room(prompt, task, int(options["max_new_tokens"]))
        if task is not None:
            encoded = self._encode(task, text, room)
        elif isinstance(text, str):
            encoded = self.encoder.encode_plain(text, room)
        else:
            raise TaskError(
                f"Found a row with the columns {', '.join(text)}, and a prompt without a task; "
                "expected a text, or load_prompt(…, task=Task.from_file('task.yaml'))."
            )
        return _Request(encoded, prompt, options=tuple(sorted(options.items())))

    def _encode(self, task: Task, text: Text, room: int | None) -> EncodedText:
        row = {task.text_column: text} if isinstance(text, str) else text
        return self.encoder.encode(task.template, row, text_column=task.text_column, room=room)

    # --- batches ---

    @torch.no_grad()
    def _predict_batch(self, batch: Mapping[int, _Request]) -> Iterator[tuple[int, Prediction]]:
        requests = list(batch.values())
        groups: dict[Candidates, list[int]] = {}
        for position, request in enumerate(requests):
            assert request.candidates is not None
            groups.setdefault(request.candidates, []).append(position)
        encoded = encode_rows(
            self.base,
            [self._prepared(request.prompt) for request in requests],
            pad_rows([request.text.ids for request in requests]),
            keep_cache=any(any(candidates.continuations) for candidates in groups),
        )
        indices = list(batch)
        results: list[tuple[int, Prediction]] = []
        for candidates, positions in groups.items():
            part = encoded if len(groups) == 1 else encoded.select(positions)
            scores = label_scores(self.base, part, candidates).cpu()
            results += [
                (indices[position], _prediction(candidates, row))
                for position, row in zip(positions, scores, strict=True)
            ]
        return iter(results)

    @torch.no_grad()
    def _generate_batch(self, batch: Mapping[int, _Request]) -> Iterator[tuple[int, str]]:
        base, requests = self.base, list(batch.values())
        embedded, mask = embed_rows(
            base,
            [request.prompt.vectors if request.prompt else None for request in requests],
            pad_rows([request.text.ids for request in requests]).to(base.device),
        )
        options = dict(requests[0].options)
        # What fills up the rows that end early has to be a token that decoding skips.
        pad = base.tokenizer.pad_token_id
        options.setdefault("pad_token_id", self.encoder.end_id if pad is None else pad)
        if base.is_encoder_decoder:
            hidden = base.model.get_encoder()(inputs_embeds=embedded, attention_mask=mask.long())
            options["encoder_outputs"] = BaseModelOutput(hidden.last_hidden_state)
        else:
            options["inputs_embeds"] = embedded
        generate: Any = base.model.generate
        tokens = generate(attention_mask=mask.long(), **options)
        texts = base.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return iter(zip(batch, texts, strict=True))


def _per_row(
    texts: Sequence[Text], prompt: str | None | Sequence[str | None]
) -> list[tuple[Text, str | None]]:
    """Pair each text with its prompt's name."""
    if isinstance(texts, str | Mapping):
        raise TaskError("Found a single text; expected a list of texts, e.g. [text].")
    names = [prompt] * len(texts) if prompt is None or isinstance(prompt, str) else list(prompt)
    if len(names) != len(texts):
        raise TaskError(
            f"Found {len(names)} prompts for {len(texts)} texts; expected one name for all, or one "
            "for each text."
        )
    return list(zip(texts, names, strict=True))


def _batches(requests: Sequence[_Request], size: int) -> Iterator[dict[int, _Request]]:
    """Rows of like length and equal options together, as index → request."""
    if size < 1:
        raise ConfigError(f"batch_size is {size}; expected 1 or more.")
    order = sorted(
        range(len(requests)),
        key=lambda i: (repr(requests[i].options), len(requests[i].text.ids)),
    )
    start = 0
    while start < len(order):
        options = requests[order[start]].options
        stop = start
        while stop < min(start + size, len(order)) and requests[order[stop]].options == options:
            stop += 1
        yield {index: requests[index] for index in order[start:stop]}
        start = stop


def _bar(words: str | None, total: int) -> tqdm[NoReturn]:
    """A progress bar on stderr, where that is a terminal and somebody asked for one."""
    return tqdm(total=total, desc=words, unit="text", disable=True if words is None else None)


def _report_cuts(requests: Sequence[_Request]) -> None:
    cut = [request.text.cut for request in requests if request.text.cut]
    if cut:
        warnings.warn(
            f"{len(cut)} of {len(requests)} texts were too long and lost {sum(cut)} characters at "
            "their end.",
            SoftHubWarning,
            stacklevel=3,
        )


def _prediction(candidates: Candidates, scores: torch.Tensor) -> Prediction:
    probabilities = scores.softmax(dim=-1).tolist()
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    return Prediction(
        label=candidates.labels[best],
        probabilities=dict(zip(candidates.labels, probabilities, strict=True)),
        scores=dict(zip(candidates.labels, scores.tolist(), strict=True)),
    )
