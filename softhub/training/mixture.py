"""`fit_mixture`: one prompt for several tasks, which new tasks can then start from.

PEFT has MultitaskPromptTuning for this; its prompts refer to a local path of their source, and a
task's prompt is a product that has to be exported before it is a plain one. Here the shared prompt
is plain from the start, and a task is specialized by `fit(init=shared)`, as in SPoT (Vu et al.
2022, arXiv 2110.07904).
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import set_seed

from softhub.adapter.manifest import PrefixShape, check_task
from softhub.errors import TaskError, TrainingError, require_type
from softhub.model.assembly import PaddedBatch
from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Splits, SplitsLike, Task
from softhub.tasks.mixture import mixture_weights
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.callbacks import HistoryCallback, collapse_warnings
from softhub.training.checkpoints import check_writable, set_aside_checkpoints
from softhub.training.data import EncodedExamples, EpochSampler, LengthBucketSampler, collate
from softhub.training.encoded_task import EncodedTask, encode_task, truncation_warnings
from softhub.training.initialization import choose_initialization, init_settings, load_init
from softhub.training.module import PromptTuningModule, weight_tensor
from softhub.training.peft_config import PromptConfig, check_config, check_widths
from softhub.training.provenance import dataset_record, manifest_of, provenance_of
from softhub.training.restarts import run_state
from softhub.training.rounding import round_prefix
from softhub.training.running import FitResult, result_of, run_trainer
from softhub.training.trainer import PromptTrainer


def fit_mixture(
    base: BaseModel,
    tasks: Sequence[Task],
    config: PromptConfig,
    data: Sequence[SplitsLike],
    *,
    args: PromptTrainingArguments | None = None,
    init: str | Path | SoftPrompt | None = "vocabulary",
    mixture: str = "temperature",
    resume: bool = False,
) -> FitResult:
    """Train one prompt on several tasks.

    Each batch is of one task, drawn by the mixture's weights; each task has its own template, label
    words and loss. The best checkpoint is the one with the lowest mean of the tasks' dev losses.
    The history has each of them, and for classification the task's metrics, as
    `eval_<task>_<metric>`; for generation it has the loss alone, since metrics would need texts to
    be generated at every evaluation.

    Args:
        base: A frozen base from `load_base`.
        tasks: The tasks, of different names.
        config: As in `fit`.
        data: The data of each task, in the same order; each as in `fit`.
        args: Training arguments.
        init: As in `fit`; `"labels"` takes those of the first task.
        mixture: `proportional`, `temperature` or `equal`; see `softhub.tasks.mixture`.
        resume: As in `fit`.

    Returns:
        The prompt, which has no task, and a summary of training.

    Raises:
        TrainingError: The configuration cannot be trained, the loss is NaN or infinite, or the run
            that is resumed began with other settings or data.
        TrainingInterrupted: Ctrl-C was pressed; a checkpoint was saved.
        TaskError: Two tasks have the same name, one has no examples, or the mixture is unknown.
        BaseModelError: A prefix is to be trained, and the base cannot run one, or not with texts
            of this length.
        IncompatiblePrompt: The prompt to start from was trained for another base.
        InvalidAdapter: The folder of the prompt to start from is damaged.
    """
    args = args or PromptTrainingArguments()
    check_config(base, config, args)
    init = load_init(init)
    set_seed(args.seed)
    splits = to_all_splits(tasks, data)
    shares = mixture_weights(_sizes(tasks, splits), mixture)
    tokens = int(config.num_virtual_tokens)
    encoded = [
        encode_task(base, task, part.train, part.dev, virtual_tokens=tokens)
        for task, part in zip(tasks, splits, strict=True)
    ]
    check_widths(base, config, encoded)
    check_writable(args.output_dir)
    others = {**init_settings(base, config, encoded, init), "mixture": shares}
    state = run_state(base, config, encoded, splits, args, others, resume=resume)
    size = args.per_device_eval_batch_size
    start = choose_initialization(base, config, encoded, init, seed=args.seed, batch_size=size)
    if not resume:
        set_aside_checkpoints(args.output_dir)
    state.write(args.output_dir)
    module = MixtureModule(base, start.vectors, encoded, start.prefix)
    trainer = MixtureTrainer(module, args, encoded, shares, HistoryCallback())
    seconds = run_trainer(trainer, resume=resume)
    provenance = provenance_of(trainer.prompt_arguments, start.to_record(), rule=args.rule)
    if trainer.ending():
        provenance["training"]["ended"] = trainer.ending()
    provenance["mixture"] = {
        task.name: {
            "weight": shares[task.name],
            **dataset_record(task, part.train, part.dev),
        }
        for task, part in zip(tasks, splits, strict=True)
    }
    vectors, prefix = trainer.prompt_vectors(), start.prefix
    if prefix is not None:
        vectors = round_prefix(base, encoded, vectors, prefix, size)
    manifest = manifest_of(base, vectors, task=None, provenance=provenance, prefix=prefix)
    prompt = SoftPrompt(vectors, manifest)
    collapse = collapse_warnings(trainer.state.log_history)
    messages = [*truncation_warnings(encoded), *collapse]
    return replace(result_of(trainer, prompt, seconds, messages), init=start.name)


def to_all_splits(tasks: Sequence[Task], data: Sequence[SplitsLike]) -> list[Splits]:
    """Return the splits of each task; there must be data for each."""
    if len(tasks) != len(data):
        raise TrainingError(
            f"Found data for {len(data)} tasks; expected splits for each of the {len(tasks)} tasks."
        )
    for task in tasks:
        require_type("task", task, Task, "Read it with Task.from_file.")
        check_task(task)  # before the first of them is trained
    return [task.to_splits(part) for task, part in zip(tasks, data, strict=True)]


def _sizes(tasks: Sequence[Task], splits: Sequence[Splits]) -> dict[str, int]:
    names = [task.name for task in tasks]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise TaskError(f"Several tasks of a mixture are called {', '.join(double)}; rename them.")
    return {name: len(part.train) for name, part in zip(names, splits, strict=True)}


class MixtureModule(PromptTuningModule):
    """A frozen base with one trainable prompt, and the loss of each task's batches.

    Args:
        base: The base model.
        vectors: The prompt at its initialization, `[P, H]`, or the prefix, `[P, width]`.
        tasks: The tasks.
        prefix: How a row of a prefix is divided; None for a prompt.
    """

    def __init__(
        self,
        base: BaseModel,
        vectors: torch.Tensor,
        tasks: Sequence[EncodedTask],
        prefix: PrefixShape | None,
    ) -> None:
        super().__init__(base, vectors, None, prefix=prefix)
        self.of_task = [
            (one.candidates, weight_tensor(one.candidates, one.label_weights)) for one in tasks
        ]

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        task: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Compute the loss of a batch as `LossModule` does, for the task of this index `[B]`."""
        rows = PaddedBatch(input_ids, attention_mask)
        # The index is repeated in every row, because Accelerate splits each tensor by rows.
        return self._loss(rows, labels, num_items_in_batch, *self.of_task[int(task[0])])


class _Rows(Dataset[Mapping[str, Any]]):
    """Rows of one or several tasks, each with its task's index."""

    def __init__(self, parts: Sequence[tuple[int, EncodedExamples]]) -> None:
        self._rows = [(task, rows, i) for task, rows in parts for i in range(len(rows))]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        task, rows, row = self._rows[index]
        return {**rows[row], "task": task}


def _collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    return {**collate(rows), "task": torch.tensor([row["task"] for row in rows])}  # task: [B]


class MixtureSampler(EpochSampler):
    """Batches of one task each, drawn by weight, of rows of similar length.

    Each task goes through its rows in rounds, regardless of its weight: a round has each row at
    most once, in another order, and leaves out the few that fill no batch.

    Args:
        lengths: For each task the tokens of its rows; row indices continue from task to task.
        shares: Probability that a batch is of each task.
        batch_size: Rows of one optimizer step over all processes.
        seed: Seed of the order.
    """

    def __init__(
        self,
        lengths: Sequence[Sequence[int]],
        shares: Sequence[float],
        batch_size: int,
        seed: int,
    ) -> None:
        # Each task has an interval of [0, total) as long as its share.
        self._ends = list(accumulate(shares))
        self.batch_size = batch_size
        self.seed = seed
        self._samplers = [LengthBucketSampler(rows, batch_size, seed) for rows in lengths]
        # The index of each task's first row among the rows of all tasks.
        self._offsets = [sum(map(len, lengths[:task])) for task in range(len(lengths))]

    @property
    def steps(self) -> int:
        """Batches per epoch: as many as all tasks have rows for."""
        return sum(len(sampler) // sampler.batch_size for sampler in self._samplers)

    def __len__(self) -> int:
        """Return the number of rows of an epoch."""
        return self.steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        """Yield the row indices of the epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        streams = [self._batches(task) for task in range(len(self._samplers))]
        for chance in torch.rand(self.steps, generator=generator).tolist():
            yield from next(streams[bisect(self._ends, chance * self._ends[-1])])

    def _batches(self, task: int) -> Iterator[list[int]]:
        """Yield a task's batches without end, each round over its rows in another order.

        A task with fewer rows than a batch has some of them more than once in it.
        """
        sampler, offset = self._samplers[task], self._offsets[task]
        # Rounds are numbered so that no two of them, of whatever epoch, have the same order.
        turn, rows = self.epoch * 1_000, list[int]()
        while True:
            while len(rows) < self.batch_size:
                sampler.set_epoch(turn)
                rows += [offset + row for row in sampler]
                turn += 1
            # What is left of a round begins the next batch.
            yield rows[: self.batch_size]
            rows = rows[self.batch_size :]


class MixtureTrainer(PromptTrainer):
    """Trainer of a `MixtureModule`; `shares` has the probability of a batch of each task."""

    def __init__(
        self,
        module: MixtureModule,
        args: PromptTrainingArguments,
        tasks: Sequence[EncodedTask],
        shares: Mapping[str, float],
        history: HistoryCallback,
    ) -> None:
        self._tasks, self._shares = tasks, shares
        super().__init__(module, tasks[0].task, args, tasks[0].train, tasks[0].dev, [history])
        self.train_dataset = _Rows([(task, one.train) for task, one in enumerate(tasks)])
        self.data_collator = _collate

    def steps_per_pass(self) -> int:
        """Return the optimizer steps in which all tasks together have as many rows as they have."""
        return max(1, sum(len(one.train) for one in self._tasks) // self._rows_per_step)

    def _train_sampler(self) -> MixtureSampler:
        return MixtureSampler(
            [one.train.lengths for one in self._tasks],
            [self._shares[one.task.name] for one in self._tasks],
            self._rows_per_step,
            self.args.seed,
        )

    def _scores_on_dev(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate each task on its dev split; the mean of their losses is the mixture's."""
        scores = dict[str, float]()
        for task in range(len(self._tasks)):
            scores |= self._scores_of(task)
        losses = [scores[f"eval_{one.task.name}_loss"] for one in self._tasks]
        metrics = {"eval_loss": sum(losses) / len(losses), **scores}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _scores_of(self, task: int) -> dict[str, float]:
        """Return the dev loss of a task and, for classification, its metrics."""
        one = self._tasks[task]
        self._task, labels = one.task, one.candidates is not None
        self.compute_metrics = self._metrics if labels else None
        loader = self.get_eval_dataloader(_Rows([(task, one.dev.by_length())]))
        found = self.evaluation_loop(loader, "evaluation", prediction_loss_only=not labels).metrics
        wanted = ("loss", *(one.task.metrics or ("accuracy",) if labels else ()))
        return {f"eval_{one.task.name}_{name}": (found or {})[f"eval_{name}"] for name in wanted}
