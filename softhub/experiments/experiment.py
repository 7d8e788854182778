"""Evaluate a trained prompt and its baselines, and save the result of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState

from softhub.adapter.manifest import METHOD_OF_TYPE
from softhub.evaluation.calibrate import calibrate
from softhub.evaluation.evaluate import Evaluation, evaluate
from softhub.evaluation.hard_prompts import (
    choose_hard_prompts,
    evaluate_hard_prompts,
    trivial_baselines,
)
from softhub.evaluation.label_report import report_labels
from softhub.experiments.report import (
    Row,
    folder_bytes,
    print_files,
    print_table,
    training_record,
    with_scores,
    write_report,
)
from softhub.inference.engine import PromptModel
from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, SplitsLike, Task
from softhub.terminal import phase
from softhub.training import FitResult
from softhub.training.curve import write_curve

if TYPE_CHECKING:
    from softhub.hub import Hub


@dataclass
class RunReport:
    """A trained prompt with its scores on the test split, and those of its baselines.

    If there are several processes, only the main one saves, prints and publishes. Processes that
    do not evaluate hold no model and no scores; every method does nothing there.

    Attributes:
        result: What `fit` returned; its prompt is calibrated if the task is a classification.
        evaluation: Scores of the prompt on the test split, if it was evaluated.
        baselines: Evaluations on the same examples, by name.
        details: Further entries of `report.json`: the hard prompts that were chosen, per-class
            metrics, probability calibration.
        model: The base model with the prompt loaded, if this process evaluates.
        task: The task.
        test: The examples of the test split.
        adapter: Folder of the adapter, once it is saved.
    """

    result: FitResult
    evaluation: Evaluation | None = None
    baselines: Mapping[str, Evaluation] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    model: PromptModel | None = field(default=None, repr=False)
    task: Task | None = None
    test: list[Example] = field(default_factory=list, repr=False)
    adapter: Path | None = None

    @property
    def prompt(self) -> SoftPrompt:
        """The prompt with its scores, and those of its baselines, in its manifest."""
        if self.evaluation is None:
            return self.result.prompt
        return with_scores(
            self.result.prompt, self.evaluation, split="test", baselines=self.baselines
        )

    @property
    def rows(self) -> list[Row]:
        """The baselines, then the prompt, each with its costs."""
        rows = [Row(name, evaluation) for name, evaluation in self.baselines.items()]
        if self.evaluation is not None:
            trained, stored = self.prompt.vectors.numel(), 0
            if self.adapter is not None:
                stored = folder_bytes(self.adapter)
            name = METHOD_OF_TYPE[self.prompt.prompt_type]
            rows.append(Row(name, self.evaluation, trained, stored, self.result.seconds))
        return rows

    def save(self, folder: str | Path, config: Any = None) -> Path:
        """Write the adapter, `report.json` and the learning curve.

        Args:
            folder: The folder of the run; the adapter is written to `adapter` in it.
            config: Settings to record in the report, a dataclass.

        Returns:
            The folder of the adapter.
        """
        adapter = Path(folder) / "adapter"
        if PartialState().is_main_process:
            self.prompt.save_pretrained(adapter)
            self.adapter = adapter  # as it was given, because people copy the printed path
            details = {**self.details, **training_record(self.result)}
            if config is not None:
                details["config"] = asdict(config)
            write_report(Path(folder) / "report.json", self.rows, **details)
            write_curve(folder, self.result)
        return adapter

    def print(self) -> None:
        """Print the scores with their 95 % intervals and costs, and where the files are."""
        if not PartialState().is_main_process:
            return
        if self.evaluation is not None:
            manifest = self.prompt.manifest
            task = (manifest.task or {}).get("name", METHOD_OF_TYPE[manifest.prompt_type])
            examples = len(self.evaluation.references)
            title = f"{task} on {manifest.base_model}: {examples} test examples"
            print_table(self.rows, title=title)
        print_files(self.result, self.adapter)

    def print_examples(self, count: int) -> None:
        """Print the first test examples with the texts that were generated for them.

        Args:
            count: Number of examples.
        """
        if self.evaluation is None:
            return
        shown = list(zip(self.test, self.evaluation.predictions, strict=True))[:count]
        for example, answer in shown:
            print(f"text:      {example.text}\nreference: {example.target}\nanswer:    {answer}\n")

    def print_answers(self, text: str) -> None:
        """Print the answers to a text of the base model alone, then with the prompt.

        Args:
            text: A text that fits the task's template.
        """
        if self.model is None or self.task is None:
            return
        answer = self.model.generate if self.task.kind == "generation" else self.model.predict
        trained = METHOD_OF_TYPE[self.prompt.prompt_type]
        for name, prompt in (("base model", None), (trained, trained)):
            (found,) = answer([text], prompt=prompt, task=self.task)
            print(f"{name}: {text!r} -> {getattr(found, 'label', found)!r}")

    def publish(self, hub: Hub | str | None, repo_id: str) -> Path | SoftPrompt:
        """Push the saved adapter to a hub, and pull it again.

        Args:
            hub: The hub, or its URI; None for the default one.
            repo_id: Repository to push to, `namespace/name`.

        Returns:
            What `PromptModel.load_prompt` takes: the pulled folder, or the prompt itself on
            processes that push nothing.

        Raises:
            HubError: The hub cannot be reached, or refuses the push.
        """
        from softhub.hub import Hub

        if self.adapter is None:
            return self.prompt
        hub = hub if isinstance(hub, Hub) else Hub(hub)
        hub.push(self.adapter, repo_id)
        return hub.pull(repo_id)


def evaluate_run(
    base: BaseModel, task: Task, result: FitResult, data: SplitsLike, *, run_code: bool = False
) -> RunReport:
    """Evaluate a trained prompt on the test split, and the base model without it.

    All choices (the hard prompt, the temperature of the probabilities) are made on the dev split.

    Args:
        base: The base model that the prompt was trained on.
        task: The task.
        result: What `fit` returned.
        data: The splits that the prompt was trained with, and the test split, as in `fit`.
        run_code: As in `evaluate`.

    Returns:
        The report; only that of the main process has scores, unless FSDP shards the base.

    Raises:
        ConfigError: As in `evaluate`.
    """
    if not (PartialState().is_main_process or base.is_sharded):
        return RunReport(result)
    model, data = PromptModel(base), task.to_splits(data)
    name = model.load_prompt(result.prompt, name=METHOD_OF_TYPE[result.prompt.prompt_type])
    if task.kind == "classification":
        with phase("Calibrating on dev"):
            calibration = calibrate(model, task, data.dev, prompt=name)
        result = replace(result, prompt=calibration.applied_to(result.prompt))
        model.load_prompt(result.prompt, name=name)
    hard_prompts = choose_hard_prompts(model, task, data.dev, run_code=run_code)
    baselines = trivial_baselines(task, data.train, data.test)
    with phase("Evaluating hard prompts on test"):
        baselines |= evaluate_hard_prompts(model, task, hard_prompts, data.test, run_code=run_code)
    with phase(f"Evaluating the {name} on test"):
        evaluation = evaluate(model, task, data.test, prompt=name, run_code=run_code)
    details: dict[str, Any] = {"hard_prompts": list(map(asdict, hard_prompts))}
    if task.kind == "classification":
        labels = report_labels(task, data.test, evaluation, calibration.decision)
        details |= {"labels": labels.to_record(), "reliability_on_dev": calibration.dev.to_record()}
    return RunReport(result, evaluation, baselines, details, model, task, data.test)
