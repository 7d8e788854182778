"""Setup of a comparison: options, a recipe's settings, and one task, base and dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from softhub.evaluation.evaluate import Evaluation
from softhub.evaluation.hard_prompts import HardPrompt, choose_hard_prompts, evaluate_hard_prompts
from softhub.experiments.comparison.method_names import METHODS
from softhub.experiments.config import TaskConfig, option
from softhub.inference.engine import PromptModel
from softhub.model.base import BaseModel, load_base
from softhub.tasks import Splits, Task
from softhub.training import PromptTrainingArguments


@dataclass(kw_only=True)
class ComparisonOptions:
    """Options of a comparison; `softhub compare -- --help` describes each."""

    methods: list[str] = option([*METHODS], "Methods to run; the others are left out.")
    seeds: list[int] = option([0, 1, 2], "Seeds of everything that is trained or drawn.")
    virtual_tokens: list[int] = option([1, 5, 20, 50, 100], "Lengths of soft prompts.")
    ensemble_of: int = option(20, "Length of the soft prompts in the ensemble.")
    init: str | None = option("labels", "Initialization: auto, task, labels, vocabulary, …")
    shots: list[int] = option([4, 8], "Numbers of solved examples in few-shot prompts.")
    run_generated_code: bool = option(False, "Run generated code; see docs/sandbox.md.")
    lora_rate: float = option(5e-4, "Learning rate of LoRA.")
    lora_rank: int = option(8, "Rank of LoRA's matrices, which are added to every linear layer.")
    fine_tuning_rate: float = option(2e-5, "Learning rate of full fine-tuning.")


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

    def adapter(self, tokens: int, seed: int) -> Path:
        """Return the adapter folder of one soft prompt."""
        return Path(self.args.output_dir) / "adapters" / f"p{tokens}-seed{seed}"
