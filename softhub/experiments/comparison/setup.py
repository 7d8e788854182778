"""Setup of a comparison: options, a recipe's settings, and one task, base and dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from softhub.evaluation.evaluate import Evaluation
from softhub.evaluation.hard_prompts import HardPrompt, choose_hard_prompts, evaluate_hard_prompts
from softhub.experiments.comparison.method_names import METHODS, PREFIX, SOFT_PROMPT
from softhub.experiments.config import TaskConfig, option
from softhub.inference.engine import PromptModel
from softhub.model.base import BaseModel
from softhub.model.loading import load_base
from softhub.tasks import Splits, Task
from softhub.training import PromptTrainingArguments


@dataclass(kw_only=True)
class ComparisonOptions:
    """Options of a comparison; `softhub compare -- --help` describes each."""

    methods: list[str] = option([*METHODS], "Methods to run; the others are left out.")
    seeds: list[int] = option([0, 1, 2], "Seeds of everything that is trained or drawn.")
    virtual_tokens: list[int] = option([1, 5, 20, 50, 100], "Lengths of soft prompts.")
    prefix_tokens: list[int] = option([5, 20, 50], "Lengths of prefixes.")
    ensemble_of: int = option(20, "Length of the soft prompts in the ensemble.")
    init: str | None = option("labels", "Initialization: auto, task, labels, vocabulary, …")
    shots: list[int] = option([4, 8], "Numbers of solved examples in few-shot prompts.")
    run_generated_code: bool = option(False, "Run generated code; see docs/sandbox.md.")
    searched_texts: int = option(4000, "Most dev texts that the search for a hard prompt scores.")
    ia3_rates: list[float] = option([3e-3, 1e-2, 3e-2], "Learning rates of IA3 to choose from.")
    lora_rates: list[float] = option([3e-4, 1e-3, 3e-3], "Learning rates of LoRA to choose from.")
    lora_rank: int = option(8, "Rank of LoRA's matrices, which are added to every linear layer.")
    fine_tuning_rates: list[float] = option(
        [1e-5, 3e-5, 1e-4], "Learning rates of full fine-tuning to choose from."
    )
    rate_steps: int = option(40, "Steps of the short run that tries a learning rate.")


@dataclass(kw_only=True)
class ComparisonConfig(ComparisonOptions, TaskConfig):
    """Settings of the comparison recipe: its options, and the task, base and limits."""

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of `compare`."""
        return {each.name: getattr(self, each.name) for each in fields(ComparisonOptions)}

    def load_base(self) -> BaseModel:
        """Load the base model, as `compare` does once for each method that changes its weights."""
        return load_base(self.base_model, **self.base_options)


@dataclass(kw_only=True)
class ComparisonSetup(ComparisonOptions):
    """One task, one base and one split of the data, which all methods share.

    Attributes:
        task: The task.
        data: The split to train on and to draw few-shot examples from, the split that selects
            templates and checkpoints, and the split for the final evaluation.
        load: Loads a fresh copy of the base model, for methods that change its weights.
        args: Training arguments; each run has its own seed, and a folder in `output_dir`.
    """

    task: Task
    data: Splits
    load: Callable[[], BaseModel]
    args: PromptTrainingArguments

    @cached_property
    def base(self) -> BaseModel:
        """The frozen base model that all prompts share."""
        return self.load()

    @property
    def most_virtual_tokens(self) -> int:
        """Virtual tokens of the longest prompt that the methods train, 0 if none does."""
        lengths = {SOFT_PROMPT: self.virtual_tokens, PREFIX: self.prefix_tokens}
        return max((most for name in self.methods for most in lengths.get(name, [])), default=0)

    @cached_property
    def hard_prompts(self) -> Sequence[HardPrompt]:
        """The best hard templates on dev, with and without the label prior."""
        model, run_code = PromptModel(self.base), self.run_generated_code
        return choose_hard_prompts(model, self.task, self.data.dev, run_code=run_code)

    @cached_property
    def hard_evaluations(self) -> Mapping[str, Evaluation]:
        """The scores of the hard prompts on test."""
        model, run_code = PromptModel(self.base), self.run_generated_code
        return evaluate_hard_prompts(
            model, self.task, self.hard_prompts, self.data.test, run_code=run_code
        )

    def arguments(self, name: str, seed: int, **changes: Any) -> PromptTrainingArguments:
        """Return the training arguments of one run."""
        folder = str(Path(self.args.output_dir) / "runs" / f"{name}-seed{seed}")
        return replace(self.args, output_dir=folder, seed=seed, **changes)

    def adapter(self, name: str, seed: int) -> Path:
        """Return the adapter folder of one run: `p20` for a soft prompt, `prefix20`."""
        return Path(self.args.output_dir) / "adapters" / f"{name}-seed{seed}"
