"""`fit_mixture`: one prompt for several tasks, which new tasks can then start from.

PEFT has MultitaskPromptTuning for this; its prompts carry a local path of their source, and a
task's prompt is a product that has to be exported before it is a plain one. Here the shared prompt
is plain from the start, and a task is specialised by `fit(init=shared)`, as in SPoT (Vu et al.
2022, arXiv 2110.07904).
"""

from __future__ import annotations

import time
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import torch
from peft import PromptTuningConfig
from torch.utils.data import Dataset, Sampler
from transformers import TrainerCallback, TrainerState, set_seed

from softhub.errors import TaskError, TrainingError
from softhub.model.assembly import PaddedBatch
from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Task
from softhub.tasks.mixture import mixture_weights
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.callbacks import WatchCallback
from softhub.training.checkpoints import set_aside_checkpoints
from softhub.training.data import EncodedExamples, LengthBucketSampler, collate
from softhub.training.encoded_task import Lesson, prepare_lesson
from softhub.training.learning_rate import rule_of
from softhub.training.module import PromptTuner, weights_of
from softhub.training.patience import TaskPatience, TaskProgress, progress_of
from softhub.training.provenance import dataset_record, manifest_of, provenance_of
from softhub.training.reparameterization import Reparameterization
from softhub.training.restarts import make_module
from softhub.training.running import FitResult, check_config, result_of, run_trainer
from softhub.training.starts import find_start
from softhub.training.trainer import PromptTrainer


@dataclass(frozen=True)
class Part:
    """One task of a mixture.

    Attributes:
        task: The task.
        train: Examples to learn from.
        dev: Examples that help to choose the best checkpoint.
    """

    task: Task
    train: Sequence[Example]
    dev: Sequence[Example]


@dataclass(frozen=True)
class MixtureResult(FitResult):
    """What training on several tasks gave.

    Attributes:
        tasks: How far each task came, by its name; nothing if no evaluation was made.
    """

    tasks: Mapping[str, TaskProgress] = field(default_factory=dict)


def fit_mixture(
    base: BaseModel,
    parts: Sequence[Part],
    config: PromptTuningConfig,
    *,
    args: PromptTrainingArguments | None = None,
    init: str | SoftPrompt | None = "vocabulary",
    mixture: str = "temperature",
    resume: bool = False,
) -> MixtureResult:
    """Train one prompt on several tasks.

    A batch is of one task, which is drawn by the mixture's weights; each task has its own template,
    words and loss. The best checkpoint goes by the mean of the tasks' dev losses. The history has
    each of them, and for classification the task's metrics too, as `eval_<task>_<metric>`; of
    generation it has the loss alone, since texts would have to be written at every evaluation.

    With `early_stopping_patience`, each task stops on its own: one whose dev loss has not fallen
    for so many evaluations is drawn no more, and its share goes to the others. Training ends when
    none is left.

    Args:
        base: A frozen base from `load_base`.
        parts: The tasks, of different names, with their examples.
        config: PEFT's configuration.
        args: Training arguments.
        init: As in `fit`; `"labels"` takes those of the first task.
        mixture: `proportional`, `temperature` or `equal`; see `softhub.tasks.mixture`.
        resume: Go on from the last checkpoint in `args.output_dir`.

    Returns:
        The prompt, which has no task of its own, and how training went.

    Raises:
        TrainingError: The configuration cannot train, or the loss is no longer a number.
        TrainingInterrupted: Ctrl-C; a checkpoint was saved.
        TaskError: Two tasks have one name, one has no examples, or the mixture is unknown.
    """
    args = args or PromptTrainingArguments()
    check_config(base, config)
    if rule_of(args.learning_rate) == "auto":
        raise TrainingError(
            "Found learning_rate auto for a mixture; expected 'scaled' or a number: a range test "
            "is of one task."
        )
    set_seed(args.seed)
    if not resume:
        set_aside_checkpoints(args.output_dir)
    shares = mixture_weights(_sizes(parts), mixture)
    tokens = int(config.num_virtual_tokens)
    learned = [
        prepare_lesson(base, part.task, part.train, part.dev, virtual_tokens=tokens)
        for part in parts
    ]
    whole = _together(learned)
    size = args.per_device_eval_batch_size
    start = find_start(base, config, whole, init, seed=args.seed, batch_size=size, parts=learned)
    module = make_module(base, whole, start, args)
    watch = WatchCallback("loss", floor=None)
    trainer = MixtureTrainer(MixtureTuner(base, module, learned), args, learned, shares, watch)
    seconds = run_trainer(trainer, resume=resume)
    provenance = provenance_of(trainer.prompt_arguments, config, init)
    progress = trainer.progress()
    provenance["mixture"] = {
        part.task.name: {
            "weight": shares[part.task.name],
            **dataset_record(part.task, (part.train, part.dev)),
        }
        for part in parts
    }
    for name, one in progress.items():
        provenance["mixture"][name]["stopped_step"] = one.stopped_step
    vectors = trainer.prompt_vectors()
    prompt = SoftPrompt(vectors, manifest_of(base, vectors, task=None, provenance=provenance))
    found = [*whole.cut_warnings, *watch.warnings()]
    return MixtureResult(**vars(result_of(trainer, prompt, seconds, found)), tasks=progress)


def _together(lessons: Sequence[Lesson]) -> Lesson:
    """The first task's labels with the texts of all, for what is drawn from them."""
    train, dev = (
        EncodedExamples(
            tuple(ids for rows in splits for ids in rows.inputs),
            tuple(answer for rows in splits for answer in rows.answers),
            sum(rows.cut for rows in splits),
        )
        for splits in ([one.train for one in lessons], [one.dev for one in lessons])
    )
    return replace(lessons[0], train=train, dev=dev)


def _sizes(parts: Sequence[Part]) -> dict[str, int]:
    names = [part.task.name for part in parts]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise TaskError(f"Several tasks of a mixture are called {', '.join(double)}; rename them.")
    return {part.task.name: len(part.train) for part in parts}


class MixtureTuner(PromptTuner):
    """A frozen base with one trainable prompt, and the loss of each task's batches.

    Args:
        base: The base model.
        prompt: The module whose output is the prompt.
        learned: The tasks.
    """

    def __init__(
        self, base: BaseModel, prompt: Reparameterization, learned: Sequence[Lesson]
    ) -> None:
        super().__init__(base, prompt, None)
        self.of_task = [
            (one.candidates, weights_of(one.candidates, one.weights)) for one in learned
        ]

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        task: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Loss of a batch, as in `Tuner`.

        Args:
            input_ids: Texts `[B, T]`, padded on the left.
            attention_mask: Which of them are real `[B, T]`, bool.
            labels: As in `Tuner`, for that task.
            task: The index of the batch's task, `[B]`, all equal.
            num_items_in_batch: Labels or target tokens of the whole step over all processes.

        Returns:
            As in `Tuner`, for that task.
        """
        rows = PaddedBatch(input_ids, attention_mask)
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
    return {**collate(rows), "task": torch.tensor([row["task"] for row in rows])}


class MixtureSampler(Sampler[int]):
    """Batches of one task each, drawn by weight, of rows of like length.

    A task goes through all its rows before one comes again, whatever its weight.

    Args:
        lengths: For each task the tokens of its rows; row indices go on from task to task.
        shares: How likely a batch is of each task.
        batch_size: Rows of one optimizer step over all processes.
        seed: Seed of the order.
        draws: Says for a task and an optimizer step, counted from 0, whether it may be drawn; what
            the others leave is divided by their shares.
    """

    def __init__(
        self,
        lengths: Sequence[Sequence[int]],
        shares: Sequence[float],
        batch_size: int,
        seed: int,
        draws: Callable[[int, int], bool] = lambda task, step: True,
    ) -> None:
        self.shares = list(shares)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self._draws = draws
        self._samplers = [LengthBucketSampler(rows, batch_size, seed) for rows in lengths]
        self._offsets = [sum(map(len, lengths[:task])) for task in range(len(lengths))]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Accelerate calls this."""
        self.epoch = epoch

    @property
    def steps(self) -> int:
        """Batches of an epoch, if each task were drawn as often as it has rows."""
        return sum(len(sampler) // sampler.batch_size for sampler in self._samplers)

    def __len__(self) -> int:
        """Rows of an epoch."""
        return self.steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        """Row indices of the epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        chances = torch.rand(self.steps, generator=generator).tolist()
        streams = [self._batches(task) for task in range(len(self._samplers))]
        for step, chance in enumerate(chances, start=self.epoch * self.steps):
            yield from next(streams[self._task_at(step, chance)])

    def _task_at(self, step: int, chance: float) -> int:
        """The task that a chance in [0, 1) falls on, among those that may be drawn."""
        shares = [share * self._draws(task, step) for task, share in enumerate(self.shares)]
        # Where none may be drawn training is at its end, and only looks ahead.
        ends = list(accumulate(shares if any(shares) else self.shares))
        return bisect(ends, chance * ends[-1])

    def _batches(self, task: int) -> Iterator[list[int]]:
        """A task's batches without end, each round in another order.

        Of a task with fewer rows than a batch, a row comes more than once in it.
        """
        sampler, offset = self._samplers[task], self._offsets[task]
        turn, rows = self.epoch * 1_000, list[int]()
        while True:
            while len(rows) < self.batch_size:
                sampler.set_epoch(turn)
                rows += [offset + row for row in sampler]
                turn += 1
            yield rows[: self.batch_size]
            rows = rows[self.batch_size :]


class MixtureTrainer(PromptTrainer):
    """Trainer of a `MixtureTuner`.

    Args:
        tuner: The module.
        args: Training arguments.
        learned: The tasks.
        shares: How likely a batch is of each.
        watch: Collects what is logged.
    """

    def __init__(
        self,
        tuner: MixtureTuner,
        args: PromptTrainingArguments,
        learned: Sequence[Lesson],
        shares: Mapping[str, float],
        watch: WatchCallback,
    ) -> None:
        self._learned, self._shares = learned, shares
        super().__init__(tuner, learned[0].task, args, learned[0].train, learned[0].dev, [watch])
        self.train_dataset = _Rows([(task, one.train) for task, one in enumerate(learned)])
        self.data_collator = _collate
        ahead = args.dataloader_num_workers * (args.dataloader_prefetch_factor or 2)
        self._patience = TaskPatience(
            [one.task.name for one in learned],
            args.early_stopping_patience,
            ahead=1 + ahead // args.gradient_accumulation_steps,
        )

    def progress(self) -> dict[str, TaskProgress]:
        """How far each task came, by its name; nothing before the first evaluation."""
        found = {
            task: progress_of(task, self.state.log_history, self._patience.patience)
            for task in self._patience.tasks
        }
        return {task: progress for task, progress in found.items() if progress is not None}

    def early_stopping(self) -> TrainerCallback:
        """Each task stops on its own."""
        return self._patience

    def _is_over(self, state: TrainerState) -> bool:
        return super()._is_over(state) or self._patience.all_stopped(state)

    def _get_train_sampler(self, train_dataset: Any = None) -> MixtureSampler:  # type: ignore[override]
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return MixtureSampler(
            [one.train.lengths for one in self._learned],
            [self._shares[one.task.name] for one in self._learned],
            step * self.args.world_size,
            self.args.seed,
            self._patience.draws,
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score each task on its dev split; the mean of their losses is the mixture's."""
        start, scores = time.perf_counter(), dict[str, float]()
        for task in range(len(self._learned)):
            scores |= self._scores_of(task)
        losses = [scores[f"eval_{one.task.name}_loss"] for one in self._learned]
        metrics = {"eval_loss": sum(losses) / len(losses), **scores}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        self._evaluation_seconds += time.perf_counter() - start
        return metrics

    def _scores_of(self, task: int) -> dict[str, float]:
        """Dev loss of a task and, of a classification, its metrics."""
        one = self._learned[task]
        self._task, labels = one.task, one.candidates is not None
        self.compute_metrics = self._metrics if labels else None
        loader = self.get_eval_dataloader(_Rows([(task, one.dev.by_length())]))
        found = self.evaluation_loop(loader, "evaluation", prediction_loss_only=not labels).metrics
        wanted = ("loss", *(one.task.metrics or ("accuracy",) if labels else ()))
        return {f"eval_{one.task.name}_{name}": (found or {})[f"eval_{name}"] for name in wanted}
