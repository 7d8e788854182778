"""Plots of a comparison, each a matplotlib figure; `softhub.plotting` makes SVG and PNG of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.filesize import decimal

from softhub.experiments.comparison.formatting import capitalized
from softhub.experiments.comparison.method_names import LORA, SOFT_PROMPT, method_family
from softhub.experiments.comparison.summary import Line, Summary
from softhub.metrics import Floats
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
            _point(scores, line, [score.value], [place], xerr=_error_bars([score]))
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
    amounts = [line.bytes for line in lines if line.bytes] or [1]
    axes.set_xlim(min(amounts) / 4, max(amounts) * 200)
    for place, line in enumerate(lines):
        position = line.bytes or min(amounts) / 4
        if line.bytes:
            axes.plot([line.bytes], [place], **_marker(line))
        text = decimal(line.bytes) if line.bytes else "nothing"
        _text_right_of(axes, position, place, text, offset=7)
    _label_bytes(axes.xaxis)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("Stored and shipped for each task")


def score_against_virtual_tokens(summary: Summary) -> Figure | None:
    """Plot scores by the length of the soft prompt, with two references; None for one length."""
    soft = [line for line in summary.table if line.virtual_tokens]
    if len(soft) < 2:
        return None
    with style():
        figure = _figure(7.6, 3.4)
        axes = figure.subplots()
        axes.set_xscale("log")
        scores = [_shown(summary, line) for line in soft]
        x = [line.virtual_tokens for line in soft]
        for line in soft:
            runs = [summary.scale * row.metrics[summary.metric] for row in line.rows]
            axes.plot([line.virtual_tokens] * len(runs), runs, ".", color=INK, alpha=0.45, zorder=4)
        y = [score.value for score in scores]
        axes.plot(x, y, color=_style(SOFT_PROMPT).color, alpha=0.6, linewidth=1)
        _point(axes, soft[0], x, y, yerr=_error_bars(scores), label="soft prompt (dots: seeds)")
        for reference in (summary.best_hard_prompt, summary.fine_tuning):
            if reference is not None:
                _level(axes, reference, summary)
        axes.set_xticks(x, [str(tokens) for tokens in x])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("virtual tokens (log scale)")
        axes.set_ylabel(summary.heading)
        legend_outside(figure, axes)
    return figure


def _level(axes: Axes, line: Line, summary: Summary) -> None:
    score, color = _shown(summary, line), _style(line.method).color
    axes.axhline(score.value, color=color, linewidth=1.2, linestyle="--", label=line.name)
    axes.axhspan(score.low, score.high, color=color, alpha=0.12, linewidth=0)


def learning_curves(summary: Summary) -> Figure | None:
    """Plot loss and score on dev by step, each seed and their mean; None without a history."""
    trained = (summary.soft_prompt, summary.first(LORA), summary.fine_tuning)
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
        axes.plot(*_xy(run), color=color, linewidth=0.8, alpha=0.45)
    if not runs:
        return
    # A seed that stopped early would distort the mean, so it ends where the first seed ends.
    common = set(runs[0]).intersection(*runs)
    mean = {step: float(np.mean([run[step] for run in runs])) for step in common}
    axes.plot(*_xy(mean), color=color, linewidth=2.2, label=line.name)


def _xy(points: dict[float, float]) -> tuple[list[float], list[float]]:
    steps = sorted(points)
    return steps, [points[step] for step in steps]


# --- what the plots share ---


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _shown(summary: Summary, line: Line) -> Interval:
    """Return a line's main score as it is shown: in percent, where that is its unit."""
    return Interval(*(summary.scale * end for end in summary.score(line)))


def _error_bars(scores: Sequence[Interval]) -> Floats:
    """Return the lengths of error bars to both sides, `[2, N]`, never negative."""
    lengths = [(score.value - score.low, score.high - score.value) for score in scores]
    return np.asarray(np.maximum(np.array(lengths).T, 0))


def _marker(line: Line) -> dict[str, Any]:
    of = _style(line.method)
    return {"color": of.color, "marker": of.marker, "markersize": 6, "zorder": 3}


def _point(axes: Axes, line: Line, x: Sequence[float], y: Sequence[float], **more: Any) -> None:
    axes.errorbar(x, y, capsize=0, elinewidth=1.4, linestyle="none", **_marker(line), **more)


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
