"""Per-class metrics of a prompt, and the calibration of its probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from softhub.errors import TaskError
from softhub.evaluation.calibrate import Reliability, reliability
from softhub.evaluation.evaluate import Evaluation
from softhub.metrics.intervals import Interval
from softhub.metrics.per_class import ClassReport, class_report
from softhub.tasks import Example, Task
from softhub.tasks.decision import Decision
from softhub.terminal import print_whole

_MOST_COLUMNS = 12  # of a confusion matrix on a terminal; report.json contains all of it


@dataclass(frozen=True)
class LabelReport:
    """Per-class metrics, probability calibration and abstention of one evaluation.

    Attributes:
        classes: Precision, recall and F1 of each label, and the confusion matrix.
        reliability: Calibration error, and coverage with abstention.
        decision: The prompt's temperature and thresholds.
    """

    classes: ClassReport
    reliability: Reliability
    decision: Decision

    def to_record(self) -> dict[str, Any]:
        """Return plain JSON values, for `report.json`."""
        return {
            "per_class": self.classes.to_record(),
            "reliability": self.reliability.to_record(),
            "decision": self.decision.to_record(),
        }

    def print_classes(self) -> None:
        """Print the scores of each label and the confusion matrix to stdout."""
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        table.add_column("label", overflow="fold", max_width=20)
        for heading in ("precision, %", "recall, %", "F1, %", "texts"):
            table.add_column(heading, justify="right", no_wrap=True)
        for each in self.classes.classes:
            scores = map(_percent, (each.precision, each.recall, each.f1))
            table.add_row(Text(each.label), *scores, str(each.support))
        print()
        print_whole(table)
        if self.classes.confusion and len(self.classes.classes) <= _MOST_COLUMNS:
            print("\nConfusion matrix (rows: true label, columns: predicted label, same order):")
            print_whole(_matrix(self.classes))

    def print_reliability(self) -> None:
        """Print the calibration error and, if the prompt abstains, its coverage to stdout."""
        before, after = self.reliability.error_before, self.reliability.error
        temperature = self.decision.temperature
        print(f"\nExpected calibration error: {100 * before:.1f} %", end="")
        print(f", {100 * after:.1f} % at temperature {temperature:.2f}." * (temperature != 1))
        if self.decision.abstain_below:
            print(self.reliability.answered.sentence())


def report_labels(
    task: Task, examples: Sequence[Example], evaluation: Evaluation, decision: Decision
) -> LabelReport:
    """Compute per-class metrics, probability calibration and abstention of an evaluation.

    Args:
        task: The task.
        examples: The examples that were evaluated.
        evaluation: From `evaluate`, on a classification task.
        decision: The prompt's temperature and thresholds.

    Raises:
        TaskError: The evaluation has no probabilities, such as one of generated texts.
    """
    if task.verbalizer is None or not evaluation.details:
        raise TaskError("Per-class metrics need the predictions of a classification task.")
    details, references = evaluation.details, evaluation.references
    return LabelReport(
        classes=class_report(
            evaluation.predictions,
            references,
            task.verbalizer.labels,
            multilabel=task.multilabel,
            groups=[example.group for example in examples],
        ),
        reliability=reliability(details, references, decision),
        decision=decision,
    )


def _percent(interval: Interval) -> str:
    value, low, high = (100 * x for x in interval)
    return f"{value:.1f} ({low:.1f}-{high:.1f})"


def _matrix(report: ClassReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    table.add_column(overflow="fold", max_width=20)
    for _ in report.classes:
        table.add_column(justify="right", no_wrap=True)
    for each, counts in zip(report.classes, report.confusion or (), strict=True):
        table.add_row(Text(each.label), *map(str, counts))
    return table
