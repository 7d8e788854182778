"""The methods that train weights: IA3, LoRA and full fine-tuning, and their learning rates.

The rate of a soft prompt comes from a rule that was measured on several tasks. There is no such
rule for weights, so each method gets the best rate of a grid on dev: a short run of the same loss
and batches for each rate, once for all seeds. A grid of one rate is a given rate.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from peft import IA3Config, LoraConfig, PeftConfig
from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING

from softhub.evaluation.evaluate import evaluate
from softhub.experiments.comparison.fields import Fields, scored, template_tokens, trained
from softhub.experiments.comparison.fine_tuning import WeightsResult, fit_weights
from softhub.experiments.comparison.method_names import FINE_TUNING, IA3, LORA, RATE_SEARCHED
from softhub.experiments.comparison.setup import ComparisonSetup
from softhub.experiments.comparison.store import RowStore
from softhub.inference.engine import PromptModel
from softhub.model.base import BaseModel
from softhub.terminal import phase
from softhub.training import PromptTrainingArguments

logger = logging.getLogger("softhub")

RATES, _LOCK = "rates.jsonl", ".rates.lock"
_SEARCH_SEED = 0
_UNSAVED = {"save_strategy": "no", "load_best_model_at_end": False}


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

    def run(self, setup: ComparisonSetup, seed: int) -> Fields:
        """Compute a row."""
        if len(self.rates) == 1:
            return self._train(setup, seed, self.rates[0], {"learning_rate_rule": "given"})
        losses = self._search(setup)
        best = min(losses, key=losses.__getitem__)
        record = {
            "learning_rate_rule": "lowest dev loss of short runs",
            "dev_losses_by_rate": {f"{rate:g}": loss for rate, loss in losses.items()},
            "steps_by_rate": setup.rate_steps,
        }
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
            if row.key == (self.name, self.variant, seed) and row.details["learning_rate"] == rate:
                fields = asdict(row) | {"details": {**row.details, **record, "same_run": True}}
                return {k: v for k, v in fields.items() if k not in ("method", "setting", "seed")}
        return None

    def _search(self, setup: ComparisonSetup) -> dict[float, float]:
        """Return the dev loss after a short run at each rate; finished runs are not repeated."""
        path = Path(setup.args.output_dir) / RATES
        with FileLock(path.with_name(_LOCK)):  # other seeds may run at the same time
            losses = {rate: self._short_run(setup, rate, path) for rate in sorted(self.rates)}
        best = min(losses, key=losses.__getitem__)
        if best in (min(losses), max(losses)):
            logger.warning(
                "%s: the best learning rate, %g, is at the end of the grid; add rates beyond it.",
                self.name,
                best,
            )
        return losses

    def _short_run(self, setup: ComparisonSetup, rate: float, path: Path) -> float:
        steps = setup.rate_steps
        key = {"method": self.name, "variant": self.variant, "rate": rate, "steps": steps}
        lines = path.read_text(encoding="utf-8").splitlines(True) if path.is_file() else []
        for record in (json.loads(line) for line in lines if line.endswith("\n")):
            if key.items() <= record.items():
                return float(record["dev_loss"])
        run = {"learning_rate": rate, "max_steps": steps, "eval_steps": steps, **_UNSAVED}
        args = setup.arguments(f"{self.name}-{rate:g}", _SEARCH_SEED, **run)
        with phase(f"{self.name}: {steps} steps at {rate:g}"):
            result = self._fit(setup.load(), setup, args)
        record = {**key, "dev_loss": result.best_score, "seconds": round(result.seconds, 1)}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        return result.best_score


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
