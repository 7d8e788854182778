"""Where training starts: the first vectors of a prompt.

Vectors come from the embedding module of words that occur, never from random rows of the table:
unscaled random vectors are several times longer than a word's, or shorter, as bases differ. After
Lester et al. 2021 (arXiv 2104.08691): class labels, then sampled vocabulary, then random. A
sentence that says what the task is does better on some tasks and not on others (docs/training.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from peft import PromptTuningConfig, PromptTuningInit

from softhub.errors import TrainingError
from softhub.model.base import BaseModel
from softhub.model.encoding import Encoder
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Task

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
        return [*encoder.describe(task, tokens)]
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
