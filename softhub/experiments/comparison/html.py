"""The report of a comparison as one HTML file: nothing is loaded, nothing is run.

Every text in it is escaped, and a content security policy forbids all but its own style sheet.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import jinja2

import softhub
from softhub.experiments.comparison import plots
from softhub.experiments.comparison.conclusions import findings, left_out, meaning
from softhub.experiments.comparison.summary import MAJORITY, Line, Summary, method_family
from softhub.experiments.comparison.tables import COSTS, costs, difference, other_scores
from softhub.experiments.comparison.wording import in_words, metric_name, percent
from softhub.plotting import method_style, to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Drawn: TypeAlias = "tuple[str, str, str, Figure | None]"
"""Name, title, caption and figure of a plot; None where there is nothing to draw."""


@dataclass(frozen=True)
class Plot:
    """A picture and what it shows.

    Attributes:
        title: Its heading.
        caption: How to read it.
        svg: The picture.
    """

    title: str
    caption: str
    svg: str


def render_html(summary: Summary, about: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """Return the report.

    Args:
        summary: What was found.
        about: What all rows have in common, as `comparison.json` has it: task, base, data,
            training.
        machine: Hardware and versions.
    """
    style = _source("report.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _template().render(
        summary=summary,
        style=style,
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'",
        task=about.get("task") or {},
        base=about.get("base") or {},
        data=about.get("data") or {},
        findings=findings(summary),
        left_out=left_out(summary),
        methods=[(m, meaning(m)) for m in dict.fromkeys(x.method for x in summary.table)],
        metric=metric_name(summary.metric),
        others=other_scores(summary),
        differences=[line.name for line in summary.anchors],
        cost_headings=[heading.replace("\n", " ") for heading in COSTS],
        rows=[_row(line, summary) for line in summary.table],
        overview=to_svg(plots.overview(summary), "overview", _as_text(summary)),
        plots=list(_plots(summary, about)),
        choices=list(_choices(summary)),
        training=_facts(about.get("training") or {}),
        machine=_facts(machine),
        version=softhub.__version__,
    )


def _row(line: Line, summary: Summary) -> dict[str, Any]:
    return {
        "name": line.name,
        "color": method_style(method_family(line.method)).color,
        "default": line is summary.soft_prompt,
        "seeds": line.seeds,
        "score": percent(summary.score(line)),
        "bar": _bar(line, summary),
        "differences": list(map(difference, summary.differences(line))),
        "costs": costs(line),
    }


def _bar(line: Line, summary: Summary) -> list[float]:
    """Low end of the interval, score and high end, as shares of what the intervals span.

    The majority label would squeeze the rest into a corner: it has none.
    """
    drawn = [summary.score(other) for other in summary.table if other.method != MAJORITY]
    if line.method == MAJORITY or not drawn:
        return []
    least, most = min(score.low for score in drawn), max(score.high for score in drawn)
    score = summary.score(line)
    ends = (score.low, score.value, score.high)
    return [(at - least) / max(most - least, 1e-9) for at in ends]


def _plots(summary: Summary, about: Mapping[str, Any]) -> Iterator[Plot]:
    bytes_of_base = int((about.get("base") or {}).get("bytes") or 0)
    drawn = (_of_scores(summary), _of_curves(summary), _of_costs(summary, bytes_of_base))
    for name, title, caption, figure in chain(*drawn):
        if figure is not None:
            yield Plot(title, caption, to_svg(figure, name, f"{title}. {caption}"))


def _of_scores(summary: Summary) -> Iterator[_Drawn]:
    yield (
        "parameters",
        "Score against trainable parameters",
        "Lines are 95 % intervals. Methods that train nothing stand to the left.",
        plots.score_against_parameters(summary),
    )
    yield (
        "tokens",
        "Score against virtual tokens",
        "Dots are single seeds. Bands are the 95 % intervals of the best hard prompt, chosen with "
        "hindsight on the test split, and of full fine-tuning.",
        plots.score_against_virtual_tokens(summary),
    )
    yield (
        "confusion",
        "What was taken for what",
        "Per cent of the examples of each right label, over all seeds.",
        plots.confusion(summary, _confused(summary)),
    )


def _of_curves(summary: Summary) -> Iterator[_Drawn]:
    soft = [line for line in summary.table if line.virtual_tokens]
    trained = [summary.soft_prompt, summary.first("LoRA"), summary.fine_tuning]
    yield (
        "curves",
        "Learning curves",
        "Thin lines are seeds, thick lines their mean. The checkpoint with the lowest loss on dev "
        "is the one that is judged.",
        plots.learning_curves(summary, [line for line in trained if line is not None]),
    )
    yield (
        "lengths",
        "Learning curves by the length of the prompt",
        "As above, for soft prompts of each length.",
        plots.learning_curves(summary, soft) if len(soft) > 1 else None,
    )


def _of_costs(summary: Summary, bytes_of_base: int) -> Iterator[_Drawn]:
    yield (
        "tasks",
        "Bytes for many tasks",
        "One base with a small part for each task, against a fine-tuned copy of it for each.",
        plots.bytes_for_tasks(summary, bytes_of_base),
    )
    yield (
        "times",
        "Time to train and to answer",
        "Wall time on the machine named below, means over the seeds. Training includes its "
        "evaluations on dev; other work on the machine adds to it.",
        plots.times(summary),
    )


def _confused(summary: Summary) -> list[Line]:
    """Methods that get a confusion matrix: side by side if labels are few, else one."""
    chosen = [summary.soft_prompt, summary.best_hard_prompt, summary.fine_tuning]
    lines = [line for line in chosen if line is not None] or [
        line for line in summary.table if line.method != MAJORITY
    ]
    return lines[: 3 if len(summary.labels) <= 4 else 1]


def _as_text(summary: Summary) -> str:
    lines = [f"{line.name}: {in_words(summary.score(line))}" for line in summary.table]
    return f"{metric_name(summary.metric)} with 95 % intervals. {'; '.join(lines)}."


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values, those of a nested record on one line."""
    return [(name.replace("_", " "), _fact(value)) for name, value in record.items()]


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(item)}" for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_fact, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)


def _choices(summary: Summary) -> Iterator[tuple[str, str]]:
    """What each line's runs say of themselves, once if they agree."""
    for line in summary.table:
        facts = dict.fromkeys(_fact(row.details) for row in line.rows if row.details)
        if facts:
            yield line.name, " / ".join(facts)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        undefined=jinja2.ChainableUndefined,  # an older folder may say less of its conditions
    )
    return environment.from_string(_source("report.html.j2"))


def _source(name: str) -> str:
    return (
        resources.files("softhub.experiments.comparison").joinpath(name).read_text(encoding="utf-8")
    )
