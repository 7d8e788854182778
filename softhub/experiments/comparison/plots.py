"""Plots of a comparison, each a matplotlib figure; `softhub.plotting` makes SVG and PNG of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.filesize import decimal

from softhub.experiments.comparison.formatting import capitalized
from softhub.experiments.comparison.method_names import (
    LORA,
    METHODS,
    PREFIX,
    RATE_SEARCHED,
    method_family,
)
from softhub.experiments.comparison.summary import Line, Summary
from softhub.metrics.intervals import Interval
from softhub.plotting import INK, MethodStyle, legend_outside, method_style, plain_log, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def overview(summary: Summary) -> Figure:
    """Plot scores with their intervals, next to the size of what each task stores and ships."""
    lines = summary.table[::-1]
    with style():
        figure = _figure(8.6, 0.8 + 0.3 * len(lines))
        scores, costs = figure.subplots(1, 2, sharey=True, width_ratios=[5, 4])
        if summary.soft_prompt:
            value = _shown(summary, summary.soft_prompt).value
            scores.axvline(value, color=INK, alpha=0.5, linewidth=0.8, linestyle=":")
        for place, line in enumerate(lines):
            score = _shown(summary, line)
            ends = [[max(score.value - score.low, 0)], [max(score.high - score.value, 0)]]
            scores.errorbar(score.value, place, xerr=ends, elinewidth=1.4, **_marker(line))
            _text_right_of(scores, score.high, place, f"{score.value:.1f}")
        _name_rows(scores, lines)
        scores.grid(axis="y", visible=False)
        scores.set_title(f"{capitalized(summary.heading)}, with 95 % interval")
        low, high = scores.get_xlim()
        scores.set_xlim(low, high + 0.12 * (high - low))  # room for the last text
        _cost_dots(costs, lines)
    return figure


def _cost_dots(axes: Axes, lines: Sequence[Line]) -> None:
    """Plot bytes as dots, because bars have no origin on a log scale."""
    axes.set_xscale("log")
    sizes = [round(line.mean("bytes")) for line in lines]
    stored = [size for size in sizes if size] or [1]
    axes.set_xlim(min(stored) / 4, max(stored) * 200)
    for place, (line, size) in enumerate(zip(lines, sizes, strict=True)):
        if size:
            axes.plot([size], [place], **_marker(line))
        text = decimal(size) if size else "nothing"
        _text_right_of(axes, size or min(stored) / 4, place, text, offset=7)
    _label_bytes(axes.xaxis)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("Stored and shipped for each task")


def storage(summary: Summary) -> Figure | None:
    """Plot scores with their intervals against the bytes of each task; None without any bytes.

    Lengths of one method are connected and named; markers of searched learning rates are hollow.
    """
    stored = [line for line in summary.table if line.mean("bytes")]
    if not stored:
        return None
    with style():
        figure = _figure(7.6, 4.2)
        axes = figure.subplots()
        axes.set_xscale("log")
        for label, lines in _series(stored).items():
            sizes = [line.mean("bytes") for line in lines]
            scores = [_shown(summary, line) for line in lines]
            hollow = {"markerfacecolor": "white"} if RATE_SEARCHED in label else {}
            axes.plot(
                sizes,
                [score.value for score in scores],
                label=label,
                **{**_marker(lines[0]), **hollow, "linewidth": 1.0},
            )
            for line, size, score in zip(lines, sizes, scores, strict=True):
                axes.vlines(size, score.low, score.high, color=_style(line.method).color, alpha=0.4)
                if line.setting.startswith("P = "):
                    number = line.setting.removeprefix("P = ")
                    axes.annotate(
                        number,
                        (size, score.value),
                        (3, 5),
                        textcoords="offset points",
                        fontsize=8.5,
                    )
        _label_bytes(axes.xaxis)
        axes.set_xlabel("stored and shipped for each task (log scale); numbers: virtual tokens")
        axes.set_title(f"{capitalized(summary.heading)}, with 95 % interval")
        legend_outside(figure, axes)
    return figure


def _series(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Return the lines of each method by bytes, those of a searched learning rate separately."""
    series: dict[str, list[Line]] = {}
    for family in METHODS:
        of_method = [line for line in lines if method_family(line.method) == family]
        for line in sorted(of_method, key=lambda line: line.mean("bytes")):
            searched = f", {RATE_SEARCHED}" if RATE_SEARCHED in line.setting else ""
            series.setdefault(family + searched, []).append(line)
    return series


def learning_curves(summary: Summary) -> Figure | None:
    """Plot loss and score on dev by step, each seed and their mean; None without a history."""
    longest = [line for line in summary.table if line.method == PREFIX][-1:]
    trained = (summary.soft_prompt, *longest, summary.first(LORA), summary.fine_tuning)
    lines = [line for line in trained if line and any(row.history for row in line.rows)]
    if not lines:
        return None
    scales = {"loss": 1.0}
    if any(summary.metric in logs for line in lines for row in line.rows for logs in row.history):
        scales[summary.metric] = summary.scale
    with style():
        figure = _figure(7.6, 3.2)
        panels = figure.subplots(1, len(scales), squeeze=False)[0]
        for axes, (key, scale) in zip(panels, scales.items(), strict=True):
            for line in lines:
                _curve(axes, line, key, scale)
            axes.set_xlabel("training steps")
        panels[0].set_yscale("log")
        plain_log(panels[0])
        panels[0].set_title("Loss on dev (log scale)")
        if len(panels) > 1:
            panels[1].set_title(f"{capitalized(summary.heading)}, on dev")
        legend_outside(figure, panels[0])
    return figure


def _curve(axes: Axes, line: Line, key: str, scale: float) -> None:
    color = _style(line.method).color
    runs = [{e["step"]: scale * e[key] for e in row.history if key in e} for row in line.rows]
    runs = [run for run in runs if run]
    for run in runs:
        axes.plot(*zip(*sorted(run.items()), strict=True), color=color, linewidth=0.8, alpha=0.45)
    if not runs:
        return
    # A seed that stopped early would distort the mean, so it ends where the first seed ends.
    common = set(runs[0]).intersection(*runs)
    mean = {step: float(np.mean([run[step] for run in runs])) for step in common}
    axes.plot(*zip(*sorted(mean.items()), strict=True), color=color, linewidth=2.2, label=line.name)


# --- what the plots share ---


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _shown(summary: Summary, line: Line) -> Interval:
    """Return a line's main score as it is shown: in percent, where that is its unit."""
    return Interval(*(summary.scale * end for end in summary.score(line)))


def _marker(line: Line) -> dict[str, Any]:
    of = _style(line.method)
    return {"color": of.color, "marker": of.marker, "markersize": 6, "zorder": 3}


def _text_right_of(axes: Axes, x: float, y: float, text: str, *, offset: float = 4) -> None:
    axes.annotate(text, (x, y), (offset, 0), textcoords="offset points", va="center", fontsize=8.5)


def _name_rows(axes: Axes, lines: Sequence[Line]) -> None:
    axes.set_yticks(range(len(lines)), [line.name for line in lines])
    axes.set_ylim(-0.6, len(lines) - 0.4)


def _label_bytes(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(numticks=4))
    axis.set_major_formatter(FuncFormatter(lambda value, _: decimal(round(value), precision=0)))
    axis.set_minor_locator(NullLocator())


def _style(method: str) -> MethodStyle:
    return method_style(method_family(method))
