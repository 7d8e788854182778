"""The report of a comparison as one HTML file, which loads and runs nothing.

All text is escaped. A content security policy forbids everything but the page's own style sheet and
the plots, which are part of the file.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

import jinja2

from softhub._version import __version__
from softhub.experiments.comparison import plots
from softhub.experiments.comparison.formatting import capitalized, score
from softhub.experiments.comparison.method_names import MAJORITY, METHODS, method_family
from softhub.experiments.comparison.summary import Line, Summary
from softhub.experiments.comparison.tables import COSTS, cost_cells, score_cells, score_headings
from softhub.metrics import find_metric
from softhub.plotting import method_style, to_data_uri, to_svg


def render_html(summary: Summary, about: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """Return the report.

    Args:
        summary: The results.
        about: The conditions that all rows share, as in `comparison.json`: task, base, data,
            training.
        machine: Hardware and versions.
    """
    style = _source("report.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _template().render(
        summary=summary,
        style=style,
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        task=about.get("task") or {},
        base=about.get("base") or {},
        data=about.get("data") or {},
        missing_runs=list(missing_runs(summary)),
        methods={line.method: method_family(line.method) for line in summary.table},
        headings=score_headings(summary)[1:],
        other_headings=[find_metric(name).heading_with_unit for name in _other_metrics(summary)],
        cost_headings=COSTS,
        rows=[_row(line, summary) for line in summary.table],
        plots=_plots(summary),
        overview_text=_as_text(summary),
        choices=list(_choices(summary)),
        training=about.get("training") or {},
        machine=machine,
        version=__version__,
    )


def _row(line: Line, summary: Summary) -> dict[str, Any]:
    return {
        "name": line.name,
        "color": method_style(method_family(line.method)).color,
        "default": line is summary.soft_prompt,
        "cells": score_cells(line, summary),
        "bar": _bar(line, summary),
        "others": [score(line.scores[name], name) for name in _other_metrics(summary)],
        "costs": cost_cells(line),
    }


def _other_metrics(summary: Summary) -> list[str]:
    return list(summary.table[0].samples)[1:]


def _bar(line: Line, summary: Summary) -> list[float]:
    """Return low end, score and high end, as fractions of the range of all intervals.

    The majority label has no bar, because it would compress the others.
    """
    shown = [summary.score(other) for other in summary.table if other.method != MAJORITY]
    if line.method == MAJORITY or not shown:
        return []
    least, most = min(each.low for each in shown), max(each.high for each in shown)
    own = summary.score(line)
    ends = (own.low, own.value, own.high)
    return [(end - least) / max(most - least, 1e-9) for end in ends]


def _plots(summary: Summary) -> dict[str, str]:
    """Return the plots by name, as sources of images; the template has titles and captions."""
    figures = {
        "overview": plots.overview(summary),
        "storage": plots.storage(summary),
        "curves": plots.learning_curves(summary),
    }
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    return {name: to_data_uri(to_svg(figure, name)) for name, figure in drawn.items()}


def _as_text(summary: Summary) -> str:
    metric = summary.metric
    scores = (f"{line.name}: {score(summary.score(line), metric)}" for line in summary.table)
    return f"{summary.heading}, with 95 % intervals. {'; '.join(scores)}."


def missing_runs(summary: Summary) -> Iterator[str]:
    """Yield sentences on methods and seeds that a reader might expect and that were not run."""
    present = {method_family(line.method) for line in summary.table}
    if missing := [method for method in METHODS if method not in present]:
        yield f"Not run: {', '.join(missing)}."
    most = max(line.seeds for line in summary.table)
    for line in summary.table:
        if line.rows[0].seed is not None and line.seeds < most:
            seeds = "one seed" if line.seeds == 1 else f"{line.seeds} seeds"
            yield (
                f"{capitalized(line.name)} has {seeds} where others have {most}, so its interval "
                "covers less of the variation between training runs."
            )


def _choices(summary: Summary) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Yield the details of each line's runs, once if they are equal."""
    for line in summary.table:
        details = [row.details for row in line.rows if row.details]
        if details:
            yield line.name, [own for at, own in enumerate(details) if own not in details[:at]]


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        undefined=jinja2.ChainableUndefined,  # an older folder may lack some of the conditions
    )
    return environment.from_string(_source("report.html.j2"))


def _source(name: str) -> str:
    package = resources.files("softhub.experiments.comparison")
    return package.joinpath(name).read_text(encoding="utf-8")
