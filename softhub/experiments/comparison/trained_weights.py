"""The methods that train weights: IA3, LoRA and full fine-tuning, and their learning rates.

The rate of a soft prompt comes from a rule that was measured on several tasks. There is no such
rule for weights, so each method gets the best rate of a grid on dev: a short run of the same loss
and batches for each rate, once for all seeds. A grid of one rate is a given rate.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from filelock import FileLock
from peft import IA3Config, LoraConfig, PeftConfig
from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING

from softhub.errors import TrainingError
from softhub.evaluation.evaluate import evaluate
from softhub.experiments.comparison.fields import Fields, scored, template_tokens, trained
from softhub.experiments.comparison.fine_tuning import WeightsResult, fit_weights
from softhub.experiments.comparison.method_names import FINE_TUNING, IA3, LORA, RATE_SEARCHED
from softhub.experiments.comparison.processes import of_main_process
from softhub.experiments.comparison.setup import ComparisonSetup
from softhub.experiments.comparison.store import RATES, RowStore
from softhub.experiments.records import append_record, read_records
from softhub.inference.engine import PromptModel
from softhub.model.base import BaseModel
from softhub.terminal import phase
from softhub.training import PromptTrainingArguments
from softhub.training.callbacks import NonFiniteLoss

logger = logging.getLogger("softhub")

_LOCK = ".rates.lock"
_SEARCH_SEED = 0
_UNSAVED = {"save_strategy": "no", "load_best_model_at_end": False}
_SHORT = {
    "num_train_epochs": 0.0,
    "eval_strategy": "steps",
    "early_stopping_patience": 0,
    "metric_for_best_model": None,
    "greater_is_better": None,
    **_UNSAVED,
}
"""Arguments of a short run: whatever those of the others are, it ends with its dev loss."""


@dataclass(frozen=True)
class ShortRun:
    """A line of `rates.jsonl`: the dev loss of a method after some steps at a learning rate.

    Attributes:
        method: Name of the method.
        variant: What varies within it, or empty.
        rate: The learning rate.
        steps: Number of optimizer steps.
        dev_loss: The dev loss; None if it or the training loss was NaN or infinite.
        seconds: Wall time of training.
    """

    method: str
    variant: str
    rate: float
    steps: int
    dev_loss: float | None
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, str, float, int]:
        """What identifies the run within its comparison."""
        return self.method, self.variant, self.rate, self.steps


@dataclass(frozen=True)
class WeightsMethod:
    """A way to train weights.

    Attributes:
        name: Name in tables.
        variant: What varies within the method, or empty.
        rates: Learning rates to choose from.
        config: Returns PEFT's configuration of what is added to the base; None for all weights.
    """

    name: str
    variant: str
    rates: Sequence[float]
    config: Callable[[], PeftConfig] | None = None

    @property
    def setting(self) -> str:
        """The setting of its rows, which says whether the rate was searched."""
        rule = RATE_SEARCHED if len(self.rates) > 1 else ""
        return ", ".join(part for part in (self.variant, rule) if part)

    def options(self, setup: ComparisonSetup) -> dict[str, Any]:
        """Return the options on which its rows depend, as their details record them."""
        if len(self.rates) == 1:
            return {"learning_rate": self.rates[0]}
        return {"rates": sorted(self.rates), "steps_by_rate": setup.rate_steps}

    def run(self, setup: ComparisonSetup, seed: int) -> Fields:
        """Compute a row."""
        if len(self.rates) == 1:
            return self._train(setup, seed, self.rates[0], {"learning_rate_rule": "given"})
        losses = self._search(setup)
        record = {
            "learning_rate_rule": "lowest dev loss of short runs",
            "dev_losses_by_rate": {f"{rate:g}": loss for rate, loss in losses.items()},
        }
        best = _best_rate(self.name, losses)
        return self._same_run(setup, seed, best, record) or self._train(setup, seed, best, record)

    def _train(
        self, setup: ComparisonSetup, seed: int, rate: float, record: dict[str, Any]
    ) -> Fields:
        base, task = setup.load(), setup.task  # a base of its own, because the weights change
        args = setup.arguments(self.name, seed, learning_rate=rate, **_UNSAVED)
        result = self._fit(base, setup, args)
        return scored(
            evaluate(PromptModel(base), task, setup.data.test, run_code=setup.run_generated_code),
            trainable_parameters=result.trainable_parameters,
            bytes=result.bytes,
            prompt_tokens=template_tokens(setup, task.template),
            **trained(result, learning_rate=rate, **record),
        )

    def _fit(
        self, base: BaseModel, setup: ComparisonSetup, args: PromptTrainingArguments
    ) -> WeightsResult:
        config = self.config() if self.config else None
        return fit_weights(base, setup.task, setup.data, args=args, config=config)

    def _same_run(
        self, setup: ComparisonSetup, seed: int, rate: float, record: dict[str, Any]
    ) -> Fields | None:
        """Return the fields of a stored row with this rate as a given one: the same run."""
        for row in RowStore(setup.args.output_dir).rows():
            if (
                row.key == (self.name, self.variant, seed)
                and row.details.get("learning_rate") == rate
            ):
                fields = asdict(row) | {"details": {**row.details, **record, "same_run": True}}
                return {k: v for k, v in fields.items() if k not in ("method", "setting", "seed")}
        return None

    def _search(self, setup: ComparisonSetup) -> dict[float, float | None]:
        """Return the dev loss after a short run at each rate; finished runs are not repeated."""
        path = Path(setup.args.output_dir) / RATES
        # Other seeds may run at the same time. Of several processes that train together, one that
        # held the lock would wait for the others, and they for the lock.
        alone = PartialState().num_processes == 1
        with FileLock(path.with_name(_LOCK)) if alone else nullcontext():
            return {rate: self._dev_loss(setup, rate, path) for rate in sorted(self.rates)}

    def _dev_loss(self, setup: ComparisonSetup, rate: float, path: Path) -> float | None:
        """Return the dev loss after a short run at a rate, which is recorded."""
        key = (self.name, self.variant, rate, setup.rate_steps)
        found = [run for run in read_records(path, ShortRun) if run.key == key][:1]
        if found := of_main_process(found):
            return found[0].dev_loss
        run = ShortRun(*key, *self._short_run(setup, rate))
        if PartialState().is_main_process:
            append_record(path, asdict(run))
        return run.dev_loss

    def _short_run(self, setup: ComparisonSetup, rate: float) -> tuple[float | None, float]:
        """Return the dev loss after a short run, None if it diverged, and its seconds."""
        steps, name = setup.rate_steps, f"{self.name}-{rate:g}"
        length = {"learning_rate": rate, "max_steps": steps, "eval_steps": steps}
        args = setup.arguments(name, _SEARCH_SEED, **length, **_SHORT)
        with phase(f"{self.name}: {steps} steps at {rate:g}"):
            try:
                result = self._fit(setup.load(), setup, args)
            except NonFiniteLoss:
                return None, 0.0
        loss = result.best_score
        return loss if math.isfinite(loss) else None, round(result.seconds, 1)


def _best_rate(name: str, losses: Mapping[float, float | None]) -> float:
    """Return the rate with the lowest dev loss; a warning says if it is at the end of the grid.

    Raises:
        TrainingError: The loss was NaN or infinite at every rate.
    """
    finite = {rate: loss for rate, loss in losses.items() if loss is not None}
    if not finite:
        raise TrainingError(
            f"{name}: the loss became NaN or infinite at every learning rate of "
            f"{', '.join(f'{rate:g}' for rate in losses)}; expected a number at one of them. Add "
            "lower rates."
        )
    best = min(finite, key=finite.__getitem__)
    if best in (min(losses), max(losses)):
        logger.warning(
            "%s: the best learning rate, %g, is at the end of the grid; add rates beyond it.",
            name,
            best,
        )
    return best


def weights_methods(setup: ComparisonSetup) -> list[WeightsMethod]:
    """Return the methods that train weights, from few to many."""
    rank = setup.lora_rank
    lora = partial(LoraConfig, r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    return [
        WeightsMethod(IA3, "", setup.ia3_rates, IA3Config),
        WeightsMethod(LORA, f"rank {rank}", setup.lora_rates, lora),
        WeightsMethod(FINE_TUNING, "", setup.fine_tuning_rates),
    ]


def ia3_refusal(base: BaseModel) -> str | None:
    """Return why PEFT cannot add IA3 to a base without being told where; None if it can."""
    kind = base.model.config.model_type
    if kind in TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING:
        return None
    return f"PEFT has no default layers of IA3 for models of type {kind}"
