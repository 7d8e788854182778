"""Plots of a comparison, each a matplotlib figure; `softhub.plotting` makes SVG and PNG of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from softhub.experiments.comparison.descriptions import (
    FINE_TUNING,
    LORA,
    MAJORITY,
    SOFT_PROMPT,
    method_family,
)
from softhub.experiments.comparison.formatting import (
    capitalized,
    score_in_sentence,
    short_count,
    size,
)
from softhub.experiments.comparison.summary import Line, Summary
from softhub.metrics import Floats
from softhub.metrics.intervals import Interval
from softhub.plotting import INK, MethodStyle, legend_outside, method_style, plain_log, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TASKS = np.unique(np.logspace(0, 3, 60).round())


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
        text = size(line.bytes) if line.bytes else "nothing"
        _text_right_of(axes, position, place, text, offset=7)
    _ticks(axes.xaxis, partial(size, digits=0), most=4)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("Stored and shipped for each task")


def score_against_parameters(summary: Summary) -> Figure | None:
    """Plot scores by trainable parameters, with untrained methods on the left.

    None if all trained methods have the same number of parameters.
    """
    lines = _without_majority(summary)
    untrained = [line for line in lines if not line.trainable_parameters]
    trained = [line for line in lines if line.trainable_parameters]
    if len({line.trainable_parameters for line in trained}) < 2:
        return None
    with style():
        figure = _figure(7.6, 3.9)
        if untrained:
            ratio = [len(untrained), 9]
            left, right = figure.subplots(1, 2, sharey=True, width_ratios=ratio)
            _untrained_points(left, summary, untrained)
            right.tick_params(axis="y", length=0)
        else:
            right = figure.subplots()
        _trained_points(right, summary, trained)
        figure.axes[0].set_ylabel(summary.heading)
        _note_majority(figure, summary)
        legend_outside(figure, right)
    return figure


def _untrained_points(axes: Axes, summary: Summary, lines: Sequence[Line]) -> None:
    for place, line in enumerate(lines):
        score = _shown(summary, line)
        _point(axes, line, [place], [score.value], yerr=_error_bars([score]))
    axes.set_xticks(range(len(lines)), [_wrapped(line.name) for line in lines])
    axes.tick_params(axis="x", labelrotation=90, labelsize=8)
    axes.set_xlim(-0.6, len(lines) - 0.4)
    axes.set_title("Nothing trained" if len(lines) > 1 else "")


def _trained_points(axes: Axes, summary: Summary, lines: Sequence[Line]) -> None:
    axes.set_xscale("log")
    for method in dict.fromkeys(line.method for line in lines):
        of_method = [line for line in lines if line.method == method]
        scores = [_shown(summary, line) for line in of_method]
        x = [line.trainable_parameters for line in of_method]
        y = [score.value for score in scores]
        if len(x) > 1:
            axes.plot(x, y, color=_style(method).color, alpha=0.5, linewidth=1)
        label = f"{method} (number: virtual tokens)" if method == SOFT_PROMPT else method
        _point(axes, of_method[0], x, y, yerr=_error_bars(scores), label=label)
        for line, score in zip(of_method, scores, strict=True):
            if line.virtual_tokens:
                top = (line.trainable_parameters, score.high)
                number = str(line.virtual_tokens)
                offset: dict[str, Any] = {"xytext": (0, 3), "textcoords": "offset points"}
                axes.annotate(number, top, ha="center", fontsize=8, **offset)
    axes.margins(x=0.12)
    axes.set_title("Trainable parameters (log scale)")
    _ticks(axes.xaxis, short_count)


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


def learning_curves(summary: Summary, lines: Sequence[Line]) -> Figure | None:
    """Plot loss and score on dev by step, each seed and their mean; None without a history.

    Args:
        summary: The comparison.
        lines: Lines to plot; soft prompts of different lengths get shades of one color scale.
    """
    lines = [line for line in lines if any(row.history for row in line.rows)]
    if not lines:
        return None
    scales = {"loss": 1.0}
    if any(summary.metric in logs for line in lines for row in line.rows for logs in row.history):
        scales[summary.metric] = summary.scale
    with style():
        figure = _figure(7.6, 3.2)
        panels = figure.subplots(1, len(scales), squeeze=False)[0]
        colors = _curve_colors(lines)
        for axes, (key, scale) in zip(panels, scales.items(), strict=True):
            for line, color in zip(lines, colors, strict=True):
                _curve(axes, line, key, scale, color)
            axes.set_xlabel("training steps")
        panels[0].set_yscale("log")
        plain_log(panels[0])
        panels[0].set_title("Loss on dev (log scale)")
        if len(panels) > 1:
            panels[1].set_title(f"{capitalized(summary.heading)}, on dev")
        legend_outside(figure, panels[0])
    return figure


def _curve_colors(lines: Sequence[Line]) -> list[Any]:
    if all(line.virtual_tokens for line in lines) and len(lines) > 1:
        from matplotlib import colormaps

        return list(colormaps["viridis"](np.linspace(0.15, 0.85, len(lines))))
    return [_style(line.method).color for line in lines]


def _curve(axes: Axes, line: Line, key: str, scale: float, color: Any) -> None:
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


def confusion(summary: Summary, lines: Sequence[Line]) -> Figure | None:
    """Plot confusion matrices, in percent of each true label; None for generation.

    Args:
        summary: The comparison.
        lines: Lines of the table, one matrix each.
    """
    labels = summary.labels
    if not labels or not lines:
        return None
    side = max(1.9, 0.42 * len(labels) + 0.5)
    names = max(map(len, labels)) * 0.07
    upright = names > side / len(labels)
    with style():
        figure = _figure(names + 0.5 + side * len(lines), side + 0.8 + (names if upright else 0))
        panels = figure.subplots(1, len(lines), squeeze=False, sharey=True)[0]
        for axes, line in zip(panels, lines, strict=True):
            _matrix(axes, _shares(line, summary), labels, upright)
            axes.set_title(_wrapped(line.name))
            axes.set_xlabel("predicted label")
        panels[0].set_ylabel("true label")
    return figure


def _shares(line: Line, summary: Summary) -> Floats:
    """Return the share of each predicted label over all runs, `[true label, predicted label]`."""
    place = {label: index for index, label in enumerate(summary.labels)}
    counts = np.zeros((len(place), len(place)))
    for row in line.rows:
        for predicted, true in zip(row.predictions, summary.references, strict=True):
            if predicted in place and true in place:
                counts[place[true], place[predicted]] += 1
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _matrix(axes: Axes, shares: Floats, labels: Sequence[str], upright: bool) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    # Transparent over the page's background, and never so dark that the text is unreadable.
    color = _style(SOFT_PROMPT).color
    shades = LinearSegmentedColormap.from_list("shades", [f"{color}00", f"{color}99"])
    edges = np.arange(len(labels) + 1) - 0.5
    axes.pcolormesh(edges, edges, shares, cmap=shades, vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            weight = "bold" if row == column else "normal"
            text = f"{100 * share:.0f}"
            axes.text(column, row, text, ha="center", va="center", weight=weight, fontsize=8)
    axes.set_xticks(range(len(labels)), labels, rotation=90 if upright else 0, fontsize=8)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def bytes_for_tasks(summary: Summary, base_bytes: int) -> Figure | None:
    """Plot the bytes for N tasks: one base with N small parts, against N fine-tuned copies."""
    parts = [line for line in (summary.soft_prompt, summary.first(LORA)) if line is not None]
    if not parts or not base_bytes:
        return None
    copy = summary.fine_tuning.bytes if summary.fine_tuning else base_bytes
    totals = [(line.method, line.name, base_bytes + _TASKS * line.bytes) for line in parts]
    totals.append((FINE_TUNING, "fine-tuned copies", _TASKS * copy))
    with style():
        figure = _figure(7.6, 3.4)
        axes = figure.subplots()
        for method, name, total in totals:
            axes.plot(_TASKS, total, color=_style(method).color)
            _text_right_of(axes, _TASKS[-1], total[-1], f"{name}: {size(total[-1])}")
        axes.axhline(base_bytes, color=INK, alpha=0.6, linestyle=":", linewidth=1)
        alone = f"base alone: {size(base_bytes)}"
        axes.text(1.1, base_bytes / 1.12, alone, va="top", fontsize=8)
        axes.set(xscale="log", yscale="log", xlabel="tasks (log scale)", ylabel="bytes (log scale)")
        axes.set_xlim(1, _TASKS[-1])
        axes.set_ylim(bottom=base_bytes / 3)
        _ticks(axes.xaxis, short_count)
        _ticks(axes.yaxis, partial(size, digits=0))
    return figure


def times(summary: Summary) -> Figure | None:
    """Plot seconds to train and milliseconds per test example; None for the majority alone."""
    lines = _without_majority(summary)[::-1]
    if not lines:
        return None
    with style():
        figure = _figure(7.6, 0.9 + 0.27 * len(lines))
        panels = figure.subplots(1, 2, sharey=True)
        kinds: tuple[tuple[str, Callable[[Line], float]], ...] = (
            ("Training time, s", lambda line: line.train_seconds),
            ("Time per test example, ms", lambda line: 1000 * line.predict_seconds),
        )
        for axes, (title, amount) in zip(panels, kinds, strict=True):
            for place, line in enumerate(lines):
                if amount(line):
                    axes.barh(place, amount(line), height=0.55, color=_style(line.method).color)
                    _text_right_of(axes, amount(line), place, f"{amount(line):,.0f}")
            axes.set_title(title)
            axes.grid(axis="y", visible=False)
            axes.margins(x=0.15)
            axes.set_xlim(left=0)
        _name_rows(panels[0], lines)
        panels[1].tick_params(axis="y", length=0)
    return figure


# --- what the plots share ---


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _without_majority(summary: Summary) -> list[Line]:
    """Return all lines but the majority label, which would compress the scale of the others."""
    return [line for line in summary.table if line.method != MAJORITY]


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


def _note_majority(figure: Figure, summary: Summary) -> None:
    line = summary.first(MAJORITY)
    if line is not None:
        score = score_in_sentence(summary.score(line), summary.metric)
        figure.supxlabel(f"Not shown: majority label, {score}", x=0.01, ha="left", fontsize=8)


def _ticks(axis: Any, text: Callable[[float], str], most: int = 8) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(numticks=most))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_locator(NullLocator())


def _wrapped(name: str) -> str:
    return name.replace(", ", ",\n")


def _style(method: str) -> MethodStyle:
    return method_style(method_family(method))
