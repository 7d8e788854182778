"""`softhub evaluate` and `softhub calibrate`: how good an adapter is, and how sure it may be."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softhub.cli.options import (
    AdapterArgument,
    HubOption,
    JsonOption,
    RevisionOption,
    adapter_folder,
    is_folder,
)
from softhub.cli.output import emit, emit_json, emit_table, quiet_libraries
from softhub.cli.predict import BaseOption, DeviceMapOption, ForceOption
from softhub.errors import ConfigError

if TYPE_CHECKING:
    from softhub.evaluation.evaluate import Evaluation
    from softhub.evaluation.label_report import LabelReport
    from softhub.inference.engine import PromptModel
    from softhub.model.prompt import SoftPrompt
    from softhub.tasks import Example, Task

DataOption = Annotated[
    Path,
    typer.Option(
        "--task",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Task (YAML) with the data and the metrics; template and words are the adapter's own.",
        show_default=False,
    ),
]
SplitOption = Annotated[str, typer.Option(metavar="SPLIT", help="train, dev or test.")]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="At most so many examples, always the same ones.")
]
BatchOption = Annotated[int, typer.Option(min=1, help="Texts in one pass.")]


def evaluate(
    adapter: AdapterArgument,
    *,
    base: BaseOption,
    task: DataOption,
    split: SplitOption = "test",
    limit: LimitOption = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Also each label, and what is taken for what.")
    ] = False,
    run_generated_code: Annotated[
        bool,
        typer.Option(
            "--run-generated-code",
            help="Run generated code with its tests, in the sandbox; pass_at_1 needs this.",
        ),
    ] = False,
    revision: RevisionOption = None,
    hub: HubOption = None,
    batch_size: BatchOption = 32,
    device_map: DeviceMapOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Judge an adapter on labelled data: the task's metrics with their 95 % intervals.

    For classifications also the calibration of the probabilities and, where the adapter abstains,
    how much it answers and how much of that is right. Adapters that generate are judged by the
    texts that they write.
    """
    folder = adapter_folder(adapter, hub=hub, revision=revision)
    model, data, examples, _ = _load(base, folder, task, split, limit, device_map, force)
    from softhub.evaluation.evaluate import evaluate as judge
    from softhub.evaluation.label_report import report_labels

    evaluation = judge(
        model,
        data,
        examples,
        prompt="prompt",
        batch_size=batch_size,
        run_code=run_generated_code,
    )
    own = model.task_of("prompt")
    report = None
    if own is not None and own.verbalizer is not None:
        report = report_labels(own, examples, evaluation, own.decision)
    if as_json:
        emit_json(_record(evaluation, report, per_class))
    else:
        _show(evaluation, report, per_class)


def calibrate(
    adapter: AdapterArgument,
    *,
    base: BaseOption,
    task: DataOption,
    split: SplitOption = "dev",
    limit: LimitOption = None,
    accuracy: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Abstain where that is needed for this share of the answers to be right.",
        ),
    ] = None,
    abstain_below: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="P", help="Abstain below this probability instead."),
    ] = None,
    batch_size: BatchOption = 32,
    device_map: DeviceMapOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit on dev how sure an adapter may be, and write that into its folder.

    A temperature makes its probabilities mean what they say; for a multi-label task a threshold is
    chosen too. With --accuracy or --abstain-below the adapter gives no answer where it is too
    unsure. Push the folder afterwards to share it.
    """
    if not is_folder(adapter, revision=None):
        raise ConfigError(
            f"{adapter!r} is no folder; calibrate changes one: softhub pull {adapter} --to FOLDER"
        )
    folder = Path(adapter).expanduser()
    model, data, examples, prompt = _load(base, folder, task, split, limit, device_map, force)
    from softhub.evaluation.calibrate import calibrate as fit

    fitted = fit(
        model,
        data,
        examples,
        prompt="prompt",
        accuracy=accuracy,
        abstain_below=abstain_below,
        batch_size=batch_size,
    )
    fitted.applied_to(prompt).save_pretrained(folder, card=_edited_card(folder, prompt))
    if as_json:
        emit_json({"decision": fitted.decision.to_record(), "dev": fitted.dev.to_record()})
        return
    emit(f"temperature {fitted.decision.temperature:.3f}")
    if data.multilabel:
        emit(f"threshold {fitted.decision.threshold:.2f}")
    emit(f"abstain below {fitted.decision.abstain_below:.3f}")
    emit(
        f"expected calibration error on {split}: {100 * fitted.dev.error_before:.1f} % before, "
        f"{100 * fitted.dev.error:.1f} % after"
    )
    columns = ("abstain below", "answered, %", "of these right, %")
    rows = [
        (
            f"{point.abstain_below:g}",
            f"{100 * point.coverage:.1f}",
            "-" if point.accuracy is None else f"{100 * point.accuracy:.1f}",
        )
        for point in fitted.dev.operating_points
    ]
    emit_table(columns, rows)


def _load(
    base: str,
    folder: Path,
    task: Path,
    split: str,
    limit: int | None,
    device_map: str | None,
    force: bool,
) -> tuple["PromptModel", "Task", "list[Example]", "SoftPrompt"]:
    """The engine with the adapter as `prompt`, the task, its examples, and the adapter."""
    quiet_libraries()
    from softhub.inference.engine import PromptModel
    from softhub.model.base import load_base
    from softhub.model.prompt import SoftPrompt
    from softhub.tasks import Task

    data = Task.from_file(task)
    examples = data.load(split, limit=limit)
    prompt = SoftPrompt.from_pretrained(folder)
    model = PromptModel(load_base(base, device_map=device_map))
    foreign = data if prompt.manifest.task is None else None
    model.load_prompt(prompt, name="prompt", task=foreign, force=force)
    return model, data, examples, prompt


def _edited_card(folder: Path, prompt: "SoftPrompt") -> str | None:
    """The card's text if somebody changed it; else None, and it is written anew."""
    from softhub.adapter.card import render_card

    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else None
    return None if text == render_card(prompt.manifest) else text


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
    rows = [
        (name, *(f"{value:.4f}" for value in interval))
        for name, interval in evaluation.metrics.items()
    ]
    emit_table(("metric", "value", "low", "high"), rows)
    if report is None:
        return
    report.print_reliability()
    if per_class:
        report.print_classes()
