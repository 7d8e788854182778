"""`softhub evaluate` and `softhub calibrate`: scores and probability calibration of an adapter."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softhub.adapter.layout import check_not_in_hub
from softhub.cli.options import (
    PROMPT,
    AdapterOnBase,
    BaseOption,
    BatchSizeOption,
    DeviceOption,
    ForceOption,
    JsonOption,
    SplitOption,
    SubsetOption,
    TaskOption,
    is_folder,
    option,
    takes_adapter,
)
from softhub.cli.output import emit, emit_json, emit_table
from softhub.config import expand_user
from softhub.errors import ConfigError
from softhub.terminal import phase

if TYPE_CHECKING:
    from softhub.evaluation.calibrate import Calibration
    from softhub.evaluation.evaluate import Evaluation
    from softhub.evaluation.label_report import LabelReport
    from softhub.inference.engine import PromptModel
    from softhub.tasks import Example, Task

FolderArgument = Annotated[str, typer.Argument(metavar="ADAPTER", help="Adapter folder.")]
PerClassOption = Annotated[bool, typer.Option("--per-class", help="Also print per-class metrics.")]
RunCodeOption = Annotated[
    bool, typer.Option("--run-generated-code", help="Run generated code, for pass_at_1.")
]
AccuracyOption = Annotated[
    float | None,
    option("Abstain as often as needed for this accuracy of the answers.", "SHARE", min=0, max=1),
]
AbstainOption = Annotated[
    float | None, option("Abstain below this probability instead.", "P", min=0, max=1)
]


@takes_adapter
def evaluate(
    source: AdapterOnBase,
    *,
    task: TaskOption,
    split: SplitOption = "test",
    limit: SubsetOption = None,
    per_class: PerClassOption = False,
    run_generated_code: RunCodeOption = False,
    batch_size: BatchSizeOption = 32,
    as_json: JsonOption = False,
) -> None:
    """Evaluate an adapter on a split of a task.

    Prints the task's metrics with 95 % intervals; for classification also the calibration error
    and, if the adapter abstains, coverage and accuracy. Template and labels are the adapter's.
    """
    model, data, examples = _load(source, source.folder(), task, split, limit)
    from softhub.evaluation.evaluate import evaluate as run_evaluation
    from softhub.evaluation.label_report import report_labels

    with phase(f"Evaluating on {split}"):
        evaluation = run_evaluation(
            model, data, examples, prompt=PROMPT, batch_size=batch_size, run_code=run_generated_code
        )
    own = model.task_of(PROMPT)
    report = None
    if own is not None and own.verbalizer is not None:
        report = report_labels(own, examples, evaluation, own.decision)
    if as_json:
        emit_json(_record(evaluation, report, per_class))
    else:
        _show(evaluation, report, per_class)


def calibrate(
    adapter: FolderArgument,
    *,
    base: BaseOption,
    task: TaskOption,
    split: SplitOption = "dev",
    limit: SubsetOption = None,
    accuracy: AccuracyOption = None,
    abstain_below: AbstainOption = None,
    batch_size: BatchSizeOption = 32,
    device: DeviceOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Calibrate the probabilities of an adapter on the dev split.

    Fits a temperature (and a threshold if the task is multi-label) and saves it in the adapter
    folder. With --accuracy or --abstain-below the adapter abstains if its probability is too low.
    Push the folder afterwards to share the result.
    """
    if not is_folder(adapter, revision=None):
        raise ConfigError(
            f"{adapter!r} is not a folder, and calibrate changes files. Pull the adapter first: "
            f"softhub pull {adapter} --to FOLDER"
        )
    folder = expand_user(adapter)
    check_not_in_hub(folder)
    source = AdapterOnBase(adapter, base, device, force=force)
    model, data, examples = _load(source, folder, task, split, limit)
    from softhub.evaluation.calibrate import calibrate as fit

    options = {"accuracy": accuracy, "abstain_below": abstain_below}
    with phase(f"Calibrating on {split}"):
        fitted = fit(model, data, examples, prompt=PROMPT, batch_size=batch_size, **options)
    _save(fitted, folder)
    if as_json:
        emit_json({"decision": fitted.decision.to_record(), "dev": fitted.dev.to_record()})
    else:
        _show_calibration(fitted, split, multilabel=data.multilabel)


def _load(
    source: AdapterOnBase, folder: Path, task: Path, split: str, limit: int | None
) -> tuple["PromptModel", "Task", "list[Example]"]:
    """Return the model, the task and its examples; an adapter with a task keeps its own."""
    from softhub.model.prompt import SoftPrompt
    from softhub.tasks import Task

    data = Task.from_file(task)
    examples = data.load(split, limit=limit)
    foreign = SoftPrompt.from_pretrained(folder).manifest.task is None
    return source.load(folder, task if foreign else None), data, examples


def _save(fitted: "Calibration", folder: Path) -> None:
    """Save the calibrated adapter; an edited card is not changed."""
    from softhub.adapter.card.render import render_card
    from softhub.model.prompt import SoftPrompt

    prompt, card = SoftPrompt.from_pretrained(folder), folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else None
    edited = None if text == render_card(prompt.manifest) else text
    fitted.applied_to(prompt).save_pretrained(folder, card=edited)


def _record(
    evaluation: "Evaluation", report: "LabelReport | None", per_class: bool
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "examples": len(evaluation.references),
        "metrics": {name: each._asdict() for name, each in evaluation.metrics.items()},
        "examples_per_second": evaluation.examples_per_second,
    }
    if evaluation.outcomes:
        record["outcomes"] = dict(Counter(outcome.kind for outcome in evaluation.outcomes))
    details = report.to_record() if report else {}
    if not per_class:
        details.pop("per_class", None)
    return record | details


def _show(evaluation: "Evaluation", report: "LabelReport | None", per_class: bool) -> None:
    metrics = evaluation.metrics.items()
    rows = [(name, *(f"{number:.4f}" for number in interval)) for name, interval in metrics]
    emit_table(("metric", "value", "low", "high"), rows)
    if report is not None:
        report.print_reliability()
        if per_class:
            report.print_classes()


def _show_calibration(fitted: "Calibration", split: str, *, multilabel: bool) -> None:
    decision, dev = fitted.decision, fitted.dev
    emit(f"temperature {decision.temperature:.3f}")
    if multilabel:
        emit(f"threshold {decision.threshold:.2f}")
    if decision.abstain_below:
        emit(dev.answered.sentence())
    errors = f"{100 * dev.error_before:.1f} % before, {100 * dev.error:.1f} % after calibration"
    emit(f"expected calibration error on {split}: {errors}")
    columns = ("abstain below", "coverage, %", "accuracy of answers, %")
    rows = [
        (
            f"{point.abstain_below:g}",
            f"{100 * point.coverage:.1f}",
            "-" if point.accuracy is None else f"{100 * point.accuracy:.1f}",
        )
        for point in dev.operating_points
    ]
    emit_table(columns, rows)
