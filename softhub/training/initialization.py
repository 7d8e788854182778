"""Where training starts: the first vectors of a prompt.

Vectors come from the embedding module of words that occur, never from random rows of the table:
unscaled random vectors are several times longer than a word's, or shorter, as bases differ. After
Lester et al. 2021 (arXiv 2104.08691): class labels, then sampled vocabulary, then random. A
sentence that says what the task is does better on some tasks and not on others (docs/training.md).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from peft import PromptTuningConfig, PromptTuningInit

from softhub.errors import TrainingError
from softhub.model.base import BaseModel
from softhub.model.encoding import Encoder
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Task
from softhub.training.data import collate, items_of
from softhub.training.encoded_task import Lesson
from softhub.training.module import PromptTuner
from softhub.training.reparameterization import Plain

INITS = ("task", "labels", "text", "vocabulary", "random")
_PEFT_INITS = {
    PromptTuningInit.TEXT: "text",
    PromptTuningInit.SAMPLE_VOCAB: "vocabulary",
    PromptTuningInit.RANDOM: "random",
}
_COMMONEST = 5000


def initial_vectors(
    base: BaseModel,
    config: PromptTuningConfig,
    init: str | SoftPrompt | None,
    *,
    texts: Sequence[Sequence[int]],
    task: Task,
    seed: int,
) -> torch.Tensor:
    """First vectors of a prompt.

    Args:
        base: The base model.
        config: PEFT's configuration: number of virtual tokens, and the init if `init` is None.
        init: `"task"` (sampled vocabulary, then the task's description and the words of its
            labels, right before the text), `"labels"` (words of the labels, then sampled
            vocabulary), `"text"` (the config's `prompt_tuning_init_text`, repeated),
            `"vocabulary"` (tokens drawn as often as the training texts use them), `"random"`
            (normal, as long as the vocabulary's rows), or a prompt to go on from.
        texts: Token ids of the training texts.
        task: The task, for `"task"` and `"labels"`.
        seed: Seed of what is drawn.

    Returns:
        Vectors `[P, H]`, float32, on the CPU.

    Raises:
        TrainingError: The init is unknown, needs something that is missing, or has another shape.
    """
    tokens = int(config.num_virtual_tokens)
    if isinstance(init, SoftPrompt):
        return _from_prompt(init, tokens, base.hidden_size)
    name = init or _PEFT_INITS[PromptTuningInit(config.prompt_tuning_init)]
    generator = torch.Generator().manual_seed(seed)
    if name == "random":
        return _random(base, tokens, generator)
    if name == "text":
        return text_vectors(base, config.prompt_tuning_init_text or "", tokens)
    known = _known_tokens(base, task, name, tokens)
    drawn = _frequent_tokens(base, texts, tokens, generator)
    chosen = (drawn + known)[-tokens:] if name == "task" else (known + drawn)[:tokens]
    with torch.no_grad():
        return base.embed(torch.tensor(chosen)).float().cpu()


def _known_tokens(base: BaseModel, task: Task, name: str, tokens: int) -> list[int]:
    """Tokens that an init takes from the task; the rest are drawn from its texts."""
    encoder = Encoder(base.tokenizer, is_encoder_decoder=base.is_encoder_decoder)
    if name == "vocabulary":
        return []
    if name == "task":
        return [*encoder.said_of(task, tokens)]
    if name != "labels":
        raise TrainingError(f"Unknown init {name!r}: expected one of auto, {', '.join(INITS)}.")
    candidates = encoder.candidates_of(task)
    if candidates is None:
        raise TrainingError("init 'labels' needs a classification task; use 'task'.")
    return [*candidates.token_ids]


def _from_prompt(prompt: SoftPrompt, tokens: int, width: int) -> torch.Tensor:
    if prompt.vectors.shape != (tokens, width):
        raise TrainingError(
            f"The prompt to start from has shape {list(prompt.vectors.shape)}, the new one "
            f"{[tokens, width]}: set num_virtual_tokens to {prompt.vectors.shape[0]} and use a "
            "base of the same width."
        )
    return prompt.vectors.clone()


def text_vectors(base: BaseModel, text: str, tokens: int) -> torch.Tensor:
    """Embeddings of a text's tokens, repeated or cut to as many as are wanted.

    Args:
        base: The base model.
        text: The text.
        tokens: How many.

    Returns:
        Embeddings `[tokens, H]`, float32, on the CPU.

    Raises:
        TrainingError: The text has no tokens.
    """
    ids = list(base.tokenizer(text, add_special_tokens=False)["input_ids"])
    if not ids:
        raise TrainingError(
            "init 'text' needs a text: set prompt_tuning_init_text in PEFT's configuration, or "
            "init_text in a recipe's (--init_text '…')."
        )
    with torch.no_grad():
        return base.embed(torch.tensor((ids * (tokens // len(ids) + 1))[:tokens])).float().cpu()


def frequent_embeddings(
    base: BaseModel, texts: Sequence[Sequence[int]], count: int, *, seed: int
) -> torch.Tensor:
    """Embeddings of tokens drawn as often as the training texts use them.

    Args:
        base: The base model.
        texts: Token ids of the training texts.
        count: How many; of different tokens if the texts have so many.
        seed: Seed of the draw.

    Returns:
        Embeddings `[count, H]`, float32, on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.tensor(_frequent_tokens(base, texts, count, generator))
    with torch.no_grad():
        return base.embed(drawn).float().cpu()


def _frequent_tokens(
    base: BaseModel, texts: Sequence[Sequence[int]], count: int, generator: torch.Generator
) -> list[int]:
    """Draw different tokens, each as likely as it is frequent in the training texts."""
    special = set(base.tokenizer.all_special_ids)
    counts = Counter(token for ids in texts for token in ids if token not in special)
    common = counts.most_common(_COMMONEST)
    if not common:
        raise TrainingError("The training texts hold no tokens to start from; use init 'random'.")
    weights = torch.tensor([float(frequency) for _, frequency in common])
    drawn = torch.multinomial(
        weights, count, replacement=len(common) < count, generator=generator
    ).tolist()
    return [common[index][0] for index in drawn]


def _random(base: BaseModel, tokens: int, generator: torch.Generator) -> torch.Tensor:
    """Normal vectors with the standard deviation of the vocabulary's common rows."""
    with torch.no_grad():
        rows = base.embed(torch.arange(min(_COMMONEST, base.fingerprint["vocab_size"])))
    return torch.randn(tokens, base.hidden_size, generator=generator) * rows.float().std().cpu()


AUTO = "auto"
GIVEN = "given"
_ROWS, _BATCH = 64, 32
_SHORTEST = 3  # tokens of an instruction that says something


@dataclass(frozen=True)
class Start:
    """A start, and what is known of it.

    Attributes:
        name: Its init, or what it was taken from.
        vectors: The prompt's first vectors, `[P, H]`.
        dev_loss: Loss on dev before training; None where there was nothing to compare with.
        trained: Whether it is a prompt, which may be hard to better.
        parent: Hashes of that prompt's files, by name, if it is a candidate.
    """

    name: str
    vectors: torch.Tensor
    dev_loss: float | None = None
    trained: bool = False
    parent: Mapping[str, str] | None = None


def find_start(
    base: BaseModel,
    config: PromptTuningConfig,
    lesson: Lesson,
    init: str | SoftPrompt | None,
    candidates: Sequence[SoftPrompt] = (),
    *,
    seed: int,
    batch_size: int = _BATCH,
    parts: Sequence[Lesson] = (),
) -> Start:
    """The start that `init` names; for `"auto"`, or with candidates, the best on dev.

    Args:
        base: The base.
        config: PEFT's configuration.
        lesson: What is to be learned.
        init: As in `fit`.
        candidates: Other prompts to compare it with.
        seed: Seed of what is drawn.
        batch_size: Dev rows a pass.
        parts: The tasks that `lesson` is made of, if it is of several.

    Returns:
        The start of the lowest loss over at most 64 dev rows, before training; of several tasks the
        mean of their losses counts, as it does for checkpoints.

    Raises:
        TrainingError: As `initial_vectors`.
    """
    parts = parts or [lesson]
    starts = [*_starts(base, config, lesson, init, seed, parts)]
    starts += [
        Start(
            f"candidate {number}",
            initial_vectors(base, config, prompt, texts=(), task=lesson.task, seed=seed),
            trained=True,
            parent=prompt.manifest.files,
        )
        for number, prompt in enumerate(candidates, start=1)
    ]
    if len(starts) == 1:
        return starts[0]
    losses = (
        fmean(dev_loss(base, part, one.vectors, batch_size=batch_size) for part in parts)
        for one in starts
    )
    judged = [replace(one, dev_loss=loss) for one, loss in zip(starts, losses, strict=True)]
    return min(judged, key=lambda start: start.dev_loss or 0.0)


def _starts(
    base: BaseModel,
    config: PromptTuningConfig,
    lesson: Lesson,
    init: str | SoftPrompt | None,
    seed: int,
    parts: Sequence[Lesson],
) -> Iterator[Start]:
    def named(name: str | SoftPrompt | None) -> torch.Tensor:
        return initial_vectors(
            base,
            config,
            name,
            texts=lesson.train.inputs,
            task=lesson.task,
            seed=seed,
        )

    if init != AUTO:
        given = isinstance(init, SoftPrompt)
        said = init or getattr(config.prompt_tuning_init, "value", config.prompt_tuning_init)
        yield Start(GIVEN if given else str(said).lower(), named(init), trained=given)
        return
    yield Start("vocabulary", named("vocabulary"))
    if lesson.task.description or lesson.candidates is not None:  # else it is the vocabulary's
        yield Start("task", named("task"))
    if lesson.candidates is not None:
        yield Start("labels", named("labels"))
    if config.prompt_tuning_init_text:
        yield Start("text", named("text"))
    tokens = int(config.num_virtual_tokens)
    instructions = (_instructions(part.task, _length(base)) for part in parts)
    for instruction in sorted(set().union(*instructions)):
        yield Start(f"hard prompt {instruction!r}", text_vectors(base, instruction, tokens))


def _length(base: BaseModel) -> Callable[[str], int]:
    return lambda text: len(base.tokenizer(text, add_special_tokens=False)["input_ids"])


def _instructions(task: Task, length: Callable[[str], int]) -> set[str]:
    """What the task's hard templates say before the text, and the template itself does not."""
    own = re.split(r"\{\w+\}", task.template.text)[0]
    texts = [re.split(r"\{\w+\}", hard.text)[0].removesuffix(own) for hard in task.hard_templates]
    return {text for text in texts if length(text) >= _SHORTEST}


def dev_loss(
    base: BaseModel,
    lesson: Lesson,
    vectors: torch.Tensor,
    *,
    limit: int | None = _ROWS,
    batch_size: int = _BATCH,
) -> float:
    """Mean loss of a prompt over dev rows: by label, or by target token.

    Args:
        base: The base.
        lesson: The task.
        vectors: The prompt, `[P, H]`.
        limit: Over how many of the first rows; None for all.
        batch_size: Rows a pass.
    """
    tuner = PromptTuner(base, Plain(vectors), lesson.candidates, lesson.weights).eval()
    rows = [lesson.dev[index] for index in range(len(lesson.dev))[:limit]]
    rows.sort(key=lambda row: -len(row["input_ids"]))
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            batch = collate(rows[start : start + batch_size])
            batch = {name: value.to(base.device) for name, value in batch.items()}
            total += float(tuner(**batch)["losses"].sum())
            count += int(items_of(batch["labels"]).sum())
    return total / count
