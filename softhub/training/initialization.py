"""Initialization: the first vectors of a prompt, by name or by the lowest dev loss before training.

Vectors come from the embedding module, of tokens that occur in the task, never from random rows of
the table: unscaled random vectors are several times longer or shorter than a token's, depending on
the base. After Lester et al. 2021 (arXiv 2104.08691): class labels, then sampled vocabulary, then
random. A sentence that says what the task is does better on some tasks and not on others
(docs/training.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from peft import PrefixTuningConfig, PromptTuningInit

from softhub.adapter.layout import WEIGHTS
from softhub.adapter.manifest import PrefixShape
from softhub.errors import TrainingError, require_type
from softhub.model.base import BaseModel
from softhub.model.prefix import vectors_of_prompt
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Task
from softhub.terminal import phase
from softhub.training.data import collate, count_items
from softhub.training.encoded_task import EncodedTask
from softhub.training.learning_rate import frequent_rows
from softhub.training.module import PromptTuningModule
from softhub.training.peft_config import PromptConfig, prefix_to_train

INITS = ("auto", "task", "labels", "text", "vocabulary", "random")
_PEFT_INITS = {
    PromptTuningInit.TEXT: "text",
    PromptTuningInit.SAMPLE_VOCAB: "vocabulary",
    PromptTuningInit.RANDOM: "random",
}
_COMMONEST = 5000  # tokens of the training texts that are drawn from
_DEV_ROWS = 64  # that initializations are compared on
_BATCH = 32
_SHORTEST = 3  # tokens of an instruction worth trying


@dataclass(frozen=True)
class Initialization:
    """The vectors that training starts from, and where they come from.

    Attributes:
        name: The init, or the prompt that it was taken from.
        vectors: The first vectors, `[P, H]`; of a prefix `[P, width]`.
        dev_loss: Loss on dev before training; None if it was not compared with others.
        trained: Whether it is a trained prompt, which may be hard to improve.
        parent: Hashes of that prompt's files, by name.
        prefix: How a row of a prefix is divided; None for a prompt.
    """

    name: str
    vectors: torch.Tensor
    dev_loss: float | None = None
    trained: bool = False
    parent: Mapping[str, str] | None = None
    prefix: PrefixShape | None = None

    def to_record(self) -> str | dict[str, Any]:
        """Return its record for the manifest: its name, or the hashes of its parent."""
        return self.name if self.parent is None else {"parent": dict(self.parent)}


def load_init(init: str | Path | SoftPrompt | None) -> str | SoftPrompt | None:
    """Load the prompt of an adapter folder; names and prompts are returned as they are.

    Raises:
        TrainingError: It is neither the name of an init nor an existing folder.
        ConfigError: It is of another type.
    """
    if init is not None:
        require_type("init", init, str | Path | SoftPrompt, f"Use one of {', '.join(INITS)}.")
    if isinstance(init, Path) or (isinstance(init, str) and init not in INITS):
        if not Path(init).is_dir():
            raise TrainingError(
                f"Unknown init {str(init)!r}: expected one of {', '.join(INITS)}, or the path of "
                "an adapter folder."
            )
        return SoftPrompt.from_pretrained(init)
    return init


def init_settings(
    base: BaseModel,
    config: PromptConfig,
    tasks: Sequence[EncodedTask],
    init: str | SoftPrompt | None,
    candidates: Sequence[SoftPrompt] = (),
) -> dict[str, Any]:
    """Return what identifies an init, for the identity of a run: names, texts and hashes."""
    name, *others = map(_identified, (init or _default_init(config), *candidates))
    hard = set().union(*(_instructions(base, one.task) for one in tasks)) if init == "auto" else ()
    return {
        "init": name,
        "init_text": _init_text(config),
        "init_candidates": others,
        "hard prompts of init": sorted(hard),
    }


def _identified(init: str | SoftPrompt) -> str:
    return init.hashes()[WEIGHTS] if isinstance(init, SoftPrompt) else init


def choose_initialization(
    base: BaseModel,
    config: PromptConfig,
    tasks: Sequence[EncodedTask],
    init: str | SoftPrompt | None,
    candidates: Sequence[SoftPrompt] = (),
    *,
    seed: int,
    batch_size: int = _BATCH,
) -> Initialization:
    """Return the initialization that `init` names; for `"auto"`, or with candidates, the best.

    The best is the one with the lowest loss over at most 64 dev rows before training; for several
    tasks, the one with the lowest mean of their losses. A prefix starts from the keys and values of
    a prompt, with which it answers exactly as that prompt does.

    Raises:
        TrainingError: An init needs something that is missing, or a prompt has another shape.
        IncompatiblePrompt: A prompt is of another base.
    """
    found = [*_by_name(base, config, tasks, init, seed)]
    for number, prompt in enumerate(candidates, start=1):
        found.append(_from_prompt(f"candidate {number}", prompt, base, config))
    if (shape := prefix_to_train(base, config)) is not None:
        found = [_as_prefix(base, one, shape) for one in found]
    if len(found) == 1:
        return found[0]
    losses = []
    with phase("Comparing initializations on dev", len(found), "prompt") as advance:
        for one in found:
            options: dict[str, Any] = {"prefix": one.prefix, "batch_size": batch_size}
            losses.append(fmean(dev_loss(base, task, one.vectors, **options) for task in tasks))
            advance(1)
    best = min(range(len(found)), key=losses.__getitem__)
    return replace(found[best], dev_loss=losses[best])


def _by_name(
    base: BaseModel,
    config: PromptConfig,
    tasks: Sequence[EncodedTask],
    init: str | SoftPrompt | None,
    seed: int,
) -> Iterator[Initialization]:
    """Yield the initialization of this name; for `"auto"` all that suit the task."""
    if isinstance(init, SoftPrompt):
        yield _from_prompt("given", init, base, config)
        return
    if init != "auto":
        name = str(init or _default_init(config))
        yield Initialization(name, initial_vectors(base, config, name, tasks, seed=seed))
        return
    names, first = ["vocabulary"], tasks[0]
    if first.task.description or first.candidates is not None:
        names.append("task")
    if first.candidates is not None:
        names.append("labels")
    if _init_text(config):
        names.append("text")
    for name in names:
        yield Initialization(name, initial_vectors(base, config, name, tasks, seed=seed))
    tokens = int(config.num_virtual_tokens)
    for text in sorted(set().union(*(_instructions(base, one.task) for one in tasks))):
        yield Initialization(f"hard prompt {text!r}", text_vectors(base, text, tokens))


def _default_init(config: PromptConfig) -> str:
    """Return the init that PEFT's configuration names; a prefix's names random numbers only."""
    if isinstance(config, PrefixTuningConfig):
        return "task"
    return _PEFT_INITS[PromptTuningInit(config.prompt_tuning_init)]


def _init_text(config: PromptConfig) -> str | None:
    return getattr(config, "prompt_tuning_init_text", None)  # which only a prompt's has


def _from_prompt(
    name: str, prompt: SoftPrompt, base: BaseModel, config: PromptConfig
) -> Initialization:
    to_train, own = prefix_to_train(base, config), prompt.manifest.prefix
    prompt.check_fits(base)  # the vectors of another model mean nothing here
    if own is not None and own != to_train:
        raise TrainingError(
            "The prompt to start from is a prefix; expected a prompt of input embeddings or, where "
            "a prefix is trained (PrefixTuningConfig), one with the same layers, heads and width."
        )
    tokens = int(config.num_virtual_tokens)
    if prompt.num_virtual_tokens != tokens:
        raise TrainingError(
            f"The prompt to start from has shape {list(prompt.vectors.shape)}; expected {tokens} "
            f"virtual tokens: set num_virtual_tokens to {prompt.num_virtual_tokens}, or start from "
            "another prompt."
        )
    parent = prompt.manifest.files or None
    if parent is None and prompt.manifest.provenance:  # trained: it may be saved later
        parent = prompt.hashes()
    vectors = prompt.vectors.clone()
    return Initialization(name, vectors, trained=True, parent=parent, prefix=own)


def _as_prefix(base: BaseModel, start: Initialization, shape: PrefixShape) -> Initialization:
    """Return the keys and values of a prompt to start from; a prefix is returned as it is."""
    if start.prefix is not None:
        return start
    return replace(start, vectors=vectors_of_prompt(base, start.vectors), prefix=shape)


def _instructions(base: BaseModel, task: Task) -> set[str]:
    """Return the text before the input in each hard template, without the task's own."""
    own = task.template.opening
    texts = [hard.opening.removesuffix(own) for hard in task.hard_templates]
    return {text for text in texts if len(base.encoder.tokens(text)) >= _SHORTEST}


def dev_loss(
    base: BaseModel,
    encoded: EncodedTask,
    vectors: torch.Tensor,
    *,
    prefix: PrefixShape | None = None,
    limit: int | None = _DEV_ROWS,
    batch_size: int = _BATCH,
) -> float:
    """Return the mean loss of a prompt over dev rows: per label, or per target token.

    Vectors are `[P, H]`, or `[P, width]` of a prefix.

    Only `limit` rows are taken, the same whatever their order; None takes all of them.
    """
    words, weights = encoded.candidates, encoded.label_weights
    module = PromptTuningModule(base, vectors, words, weights, prefix).eval()
    chosen = range(len(encoded.dev)) if limit is None else encoded.dev.shuffled[:limit]
    rows = [encoded.dev[index] for index in chosen]
    rows.sort(key=lambda row: -len(row["input_ids"]))
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            batch = collate(rows[start : start + batch_size])
            batch = {name: value.to(base.device) for name, value in batch.items()}
            total += float(module(**batch)["losses"].sum())
            count += int(count_items(batch["labels"]).sum())
    return total / count


# --- vectors ---


def initial_vectors(
    base: BaseModel,
    config: PromptConfig,
    name: str,
    tasks: Sequence[EncodedTask],
    *,
    seed: int,
) -> torch.Tensor:
    """Return the first vectors of a prompt, `[P, H]`, float32, on the CPU.

    Tokens are drawn from the texts of all tasks; description and label words are the first one's.
    `name` is one of `INITS`, except `"auto"`.

    Raises:
        TrainingError: The init needs something that is missing.
    """
    tokens = int(config.num_virtual_tokens)
    generator = torch.Generator().manual_seed(seed)
    if name == "random":
        # As long as the embeddings of frequent tokens.
        deviation = frequent_rows(base).std().cpu()
        return torch.randn(tokens, base.hidden_size, generator=generator) * deviation
    if name == "text":
        return text_vectors(base, _init_text(config) or "", tokens)
    known = _known_tokens(base, tasks[0].task, name, tokens)
    drawn = _frequent_tokens(base, tasks, tokens, generator)
    # `task` says what the task is right before the text; `labels` come first.
    return embed_tokens(
        base, (drawn + known)[-tokens:] if name == "task" else (known + drawn)[:tokens]
    )


def text_vectors(base: BaseModel, text: str, tokens: int) -> torch.Tensor:
    """Return the embeddings of a text's tokens, repeated or truncated to `tokens`, `[P, H]`.

    Raises:
        TrainingError: The text has no tokens.
    """
    ids = base.encoder.tokens(text)
    if not ids:
        raise TrainingError(
            "init 'text' needs a text: set prompt_tuning_init_text in PEFT's PromptTuningConfig, "
            "or init_text in a recipe's (--init-text '…'). A prefix has none: use 'task' or a "
            "trained prompt."
        )
    return embed_tokens(base, (ids * (tokens // len(ids) + 1))[:tokens])


def embed_tokens(base: BaseModel, ids: Sequence[int]) -> torch.Tensor:
    """Return embeddings `[len(ids), H]`, float32, on the CPU."""
    with torch.no_grad():
        return base.embed(torch.tensor(ids)).float().cpu()


def _known_tokens(base: BaseModel, task: Task, name: str, tokens: int) -> list[int]:
    """Return the tokens that an init takes from the task; the rest are drawn from its texts."""
    encoder = base.encoder
    if name == "vocabulary":
        return []
    if name == "task":
        return [*encoder.describe(task, tokens)]
    candidates = encoder.candidates_of(task)
    if candidates is None:
        raise TrainingError("init 'labels' needs a classification task; use 'task'.")
    return [*candidates.token_ids]


def _frequent_tokens(
    base: BaseModel, tasks: Sequence[EncodedTask], count: int, generator: torch.Generator
) -> list[int]:
    """Draw different tokens, each as likely as it is frequent in the training texts."""
    special = set(base.tokenizer.all_special_ids)
    texts = (ids for one in tasks for ids in one.train.inputs)
    counts = Counter(token for ids in texts for token in ids if token not in special)
    common = counts.most_common(_COMMONEST)
    if not common:
        raise TrainingError("The training texts have no tokens to start from; use init 'random'.")
    weights = torch.tensor([float(frequency) for _, frequency in common])
    # Only texts of very few different tokens need one of them twice.
    repeated = len(common) < count
    drawn = torch.multinomial(weights, count, replacement=repeated, generator=generator)
    return [common[index][0] for index in drawn.tolist()]
