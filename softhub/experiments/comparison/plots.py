"""Plots of a comparison, each a matplotlib figure; `drawing` turns them into SVG and PNG."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from softhub.experiments.comparison.summary import (
    FINE_TUNING,
    MAJORITY,
    SOFT_PROMPT,
    Line,
    Summary,
    method_family,
)
from softhub.experiments.comparison.wording import (
    in_words,
    metric_name,
    short_count,
    short_size,
    size,
)
from softhub.metrics import Floats
from softhub.plotting import INK, MethodStyle, legend_outside, method_style, plain_log, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TASKS = np.unique(np.logspace(0, 3, 60).round())


def overview(summary: Summary) -> Figure:
    """Scores with their intervals, and beside them what each task costs to store and ship."""
    lines = summary.table[::-1]
    with style():
        figure = _figure(8.6, 0.8 + 0.3 * len(lines))
        scores, costs = figure.subplots(1, 2, sharey=True, width_ratios=[5, 4])
        if summary.soft_prompt:
            at = 100 * summary.score(summary.soft_prompt).value
            scores.axvline(at, color=INK, alpha=0.5, linewidth=0.8, linestyle=":")
        for place, line in enumerate(lines):
            score = summary.score(line)
            _point(scores, line, [100 * score.value], [place], xerr=_arms([score]))
            _beside(scores, 100 * score.high, place, f"{100 * score.value:.1f}")
        scores.set_yticks(range(len(lines)), [line.name for line in lines])
        scores.set_ylim(-0.6, len(lines) - 0.4)
        scores.grid(axis="y", visible=False)
        scores.set_title(f"{_capital(metric_name(summary.metric))}, %, with its 95 % interval")
        _room_on_the_right(scores, 0.12)
        _cost_dots(costs, lines)
    return figure


def _cost_dots(axes: Axes, lines: Sequence[Line]) -> None:
    """Bytes of each task as dots: bars would begin nowhere on a log scale."""
    axes.set_xscale("log")
    amounts = [line.bytes for line in lines if line.bytes] or [1]
    axes.set_xlim(min(amounts) / 4, max(amounts) * 200)
    for place, line in enumerate(lines):
        at = line.bytes or min(amounts) / 4
        if line.bytes:
            axes.plot([line.bytes], [place], **_marker(line))
        _beside(axes, at, place, size(line.bytes) if line.bytes else "nothing", offset=7)
    _ticks(axes.xaxis, short_size, most=4)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("To store and ship for each task")


def score_against_parameters(summary: Summary) -> Figure | None:
    """Score by trainable parameters; what trains nothing stands to the left.

    None if all that was trained has the same size.
    """
    untrained = [line for line in _shown(summary) if not line.trainable_parameters]
    trained = [line for line in _shown(summary) if line.trainable_parameters]
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
        _name_axis(figure.axes[0], summary)
        _say_majority(figure, summary)
        legend_outside(figure, right)
    return figure


def _untrained_points(axes: Axes, summary: Summary, lines: Sequence[Line]) -> None:
    for place, line in enumerate(lines):
        score = summary.score(line)
        _point(axes, line, [place], [100 * score.value], yerr=_arms([score]))
    axes.set_xticks(range(len(lines)), [_broken(line.name) for line in lines])
    axes.tick_params(axis="x", labelrotation=90, labelsize=8)
    axes.set_xlim(-0.6, len(lines) - 0.4)
    axes.set_title("Nothing trained" if len(lines) > 1 else "")


def _trained_points(axes: Axes, summary: Summary, lines: Sequence[Line]) -> None:
    axes.set_xscale("log")
    for method, of_method in _by_method(lines):
        scores = [summary.score(line) for line in of_method]
        x = [line.trainable_parameters for line in of_method]
        y = [100 * score.value for score in scores]
        if len(x) > 1:
            axes.plot(x, y, color=_style(method).color, alpha=0.5, linewidth=1)
        _point(axes, of_method[0], x, y, yerr=_arms(scores), label=_legend_name(method))
        for line, place, score in zip(of_method, x, scores, strict=True):
            _above(axes, place, 100 * score.high, _label(line))
    axes.margins(x=0.12)
    axes.set_title("Trainable parameters (log scale)")
    _ticks(axes.xaxis, short_count)


def score_against_virtual_tokens(summary: Summary) -> Figure | None:
    """Score by the length of the soft prompt, among its neighbours; None without soft prompts."""
    soft = [line for line in summary.table if line.virtual_tokens]
    if len(soft) < 2:
        return None
    with style():
        figure = _figure(7.6, 3.4)
        axes = figure.subplots()
        axes.set_xscale("log")
        scores = [summary.score(line) for line in soft]
        x = [line.virtual_tokens for line in soft]
        for line in soft:
            runs = [100 * row.metrics[summary.metric] for row in line.rows]
            axes.plot([line.virtual_tokens] * len(runs), runs, ".", color=INK, alpha=0.45, zorder=4)
        y = [100 * score.value for score in scores]
        axes.plot(x, y, color=_style(SOFT_PROMPT).color, alpha=0.6, linewidth=1)
        _point(axes, soft[0], x, y, yerr=_arms(scores), label="soft prompt (dots: seeds)")
        for line in _neighbours(summary):
            _level(axes, line, summary)
        axes.set_xticks(x, [str(tokens) for tokens in x])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("virtual tokens (log scale)")
        _name_axis(axes, summary)
        legend_outside(figure, axes)
    return figure


def _neighbours(summary: Summary) -> list[Line]:
    """What a soft prompt's score is held against: the best hard prompt, and fine-tuning."""
    lines = (summary.best_hard_prompt, summary.fine_tuning)
    return [line for line in lines if line is not None]


def _level(axes: Axes, line: Line, summary: Summary) -> None:
    score, color = summary.score(line), _style(line.method).color
    axes.axhline(100 * score.value, color=color, linewidth=1.2, linestyle="--", label=line.name)
    axes.axhspan(100 * score.low, 100 * score.high, color=color, alpha=0.12, linewidth=0)


def learning_curves(summary: Summary, lines: Sequence[Line]) -> Figure | None:
    """Loss and score on dev by step, each seed thin and the mean thick; None without history.

    Args:
        summary: The comparison.
        lines: What to draw; lengths of the soft prompt get shades of one scale.
    """
    lines = [line for line in lines if any(row.history for row in line.rows)]
    if not lines:
        return None
    keys = ["loss", *([summary.metric] if _has(lines, summary.metric) else [])]
    with style():
        figure = _figure(7.6, 3.2)
        panels = figure.subplots(1, len(keys), squeeze=False)[0]
        colors = _curve_colors(lines)
        for axes, key in zip(panels, keys, strict=True):
            for line, color in zip(lines, colors, strict=True):
                _curve(axes, line, key, color)
            axes.set_xlabel("training steps")
        panels[0].set_yscale("log")
        plain_log(panels[0])
        panels[0].set_title("Loss on dev (log scale)")
        if len(keys) > 1:
            panels[1].set_title(f"{_capital(metric_name(summary.metric))} on dev, %")
        legend_outside(figure, panels[0])
    return figure


def _has(lines: Iterable[Line], key: str) -> bool:
    return any(key in entry for line in lines for row in line.rows for entry in row.history)


def _curve_colors(lines: Sequence[Line]) -> list[Any]:
    if all(line.virtual_tokens for line in lines) and len(lines) > 1:
        from matplotlib import colormaps

        return list(colormaps["viridis"](np.linspace(0.15, 0.85, len(lines))))
    return [_style(line.method).color for line in lines]


def _curve(axes: Axes, line: Line, key: str, color: Any) -> None:
    scale = 1 if key == "loss" else 100
    runs = [{e["step"]: scale * e[key] for e in row.history if key in e} for row in line.rows]
    runs = [run for run in runs if run]
    for run in runs:
        axes.plot(*_xy(run), color=color, linewidth=0.8, alpha=0.45)
    if not runs:
        return
    # A seed that stopped early would bend the mean: it ends where the first seed ends.
    common = set(runs[0]).intersection(*runs)
    mean = {step: float(np.mean([run[step] for run in runs])) for step in common}
    axes.plot(*_xy(mean), color=color, linewidth=2.2, label=line.name)


def _xy(points: dict[float, float]) -> tuple[list[float], list[float]]:
    steps = sorted(points)
    return steps, [points[step] for step in steps]


def confusion(summary: Summary, lines: Sequence[Line]) -> Figure | None:
    """What was taken for what, in per cent of each right label; None for generation.

    Args:
        summary: The comparison.
        lines: Methods, one matrix each.
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
            axes.set_title(_broken(line.name))
            axes.set_xlabel("predicted label")
        panels[0].set_ylabel("right label")
    return figure


def _shares(line: Line, summary: Summary) -> Floats:
    """Mean over the runs of how each label's examples were answered, `[labels, labels]`."""
    place = {label: index for index, label in enumerate(summary.labels)}
    counts = np.zeros((len(place), len(place)))
    for row in line.rows:
        for predicted, right in zip(row.predictions, summary.references, strict=True):
            if predicted in place and right in place:
                counts[place[right], place[predicted]] += 1
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _matrix(axes: Axes, shares: Floats, labels: Sequence[str], upright: bool) -> None:
    from matplotlib.patches import Rectangle

    for (row, column), share in np.ndenumerate(shares):
        # Alpha over the page's own colour, never so dark that the ink is lost on it.
        fill: dict[str, Any] = {
            "facecolor": _style(SOFT_PROMPT).color,
            "alpha": 0.6 * float(share),
            "linewidth": 0,
        }
        axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, **fill))
        text = f"{100 * share:.0f}"
        if text != "0":
            weight = "bold" if row == column else "normal"
            axes.text(column, row, text, ha="center", va="center", weight=weight, fontsize=8)
    axes.set_xticks(range(len(labels)), labels, rotation=90 if upright else 0, fontsize=8)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def bytes_for_tasks(summary: Summary, base_bytes: int) -> Figure | None:
    """Bytes to hold N tasks: one base with N small parts, against N fine-tuned copies."""
    parts = [line for line in (summary.soft_prompt, summary.first("LoRA")) if line is not None]
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
            _beside(axes, _TASKS[-1], total[-1], f"{name}: {size(total[-1])}")
        axes.axhline(base_bytes, color=INK, alpha=0.6, linestyle=":", linewidth=1)
        alone = f"the base alone: {size(base_bytes)}"
        axes.text(1.1, base_bytes / 1.12, alone, va="top", fontsize=8)
        axes.set(xscale="log", yscale="log", xlabel="tasks (log scale)", ylabel="bytes (log scale)")
        axes.set_xlim(1, _TASKS[-1])
        axes.set_ylim(bottom=base_bytes / 3)
        _ticks(axes.xaxis, short_count)
        _ticks(axes.yaxis, short_size)
    return figure


def times(summary: Summary) -> Figure | None:
    """Seconds to train, and milliseconds to answer one example; None if nothing takes time."""
    lines = _shown(summary)[::-1]
    if not lines:
        return None
    with style():
        figure = _figure(7.6, 0.9 + 0.27 * len(lines))
        panels = figure.subplots(1, 2, sharey=True)
        kinds: tuple[tuple[str, Callable[[Line], float]], ...] = (
            ("Time to train, s", lambda line: line.train_seconds),
            ("Time for one test example, ms", lambda line: 1000 * line.predict_seconds),
        )
        for axes, (title, amount) in zip(panels, kinds, strict=True):
            for place, line in enumerate(lines):
                if amount(line):
                    axes.barh(place, amount(line), height=0.55, color=_style(line.method).color)
                    _beside(axes, amount(line), place, f"{amount(line):,.0f}")
            axes.set_title(title)
            axes.grid(axis="y", visible=False)
            axes.margins(x=0.15)
            axes.set_xlim(left=0)
        panels[0].set_yticks(range(len(lines)), [line.name for line in lines])
        panels[0].set_ylim(-0.6, len(lines) - 0.4)
        panels[1].tick_params(axis="y", length=0)
    return figure


# --- what plots have in common ---


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _shown(summary: Summary) -> list[Line]:
    """All but the majority label, which would squeeze the rest into a corner."""
    return [line for line in summary.table if line.method != MAJORITY]


def _by_method(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    methods = dict.fromkeys(line.method for line in lines)
    return [(method, [line for line in lines if line.method == method]) for method in methods]


def _legend_name(method: str) -> str:
    return f"{method} (number: virtual tokens)" if method == SOFT_PROMPT else method


def _label(line: Line) -> str:
    """What stands at a point whose method the legend tells."""
    return str(line.virtual_tokens) if line.virtual_tokens else ""


def _arms(scores: Sequence[Any]) -> Floats:
    """Lengths of error bars to both sides, `[2, N]`, never below zero."""
    arms = [(100 * (s.value - s.low), 100 * (s.high - s.value)) for s in scores]
    return np.asarray(np.maximum(np.array(arms).T, 0))


def _marker(line: Line) -> dict[str, Any]:
    of = _style(line.method)
    return {"color": of.color, "marker": of.marker, "markersize": 6, "zorder": 3}


def _point(axes: Axes, line: Line, x: Sequence[float], y: Sequence[float], **more: Any) -> None:
    axes.errorbar(x, y, capsize=0, elinewidth=1.4, linestyle="none", **_marker(line), **more)


def _beside(axes: Axes, x: float, y: float, text: str, *, offset: float = 4) -> None:
    axes.annotate(text, (x, y), (offset, 0), textcoords="offset points", va="center", fontsize=8.5)


def _above(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), (0, 3), textcoords="offset points", ha="center", fontsize=8)


def _name_axis(axes: Axes, summary: Summary) -> None:
    axes.set_ylabel(f"{metric_name(summary.metric)}, %")


def _say_majority(figure: Figure, summary: Summary) -> None:
    line = summary.first(MAJORITY)
    if line is not None:
        text = f"Not drawn: majority label, {in_words(summary.score(line))}"
        figure.supxlabel(text, x=0.01, ha="left", fontsize=8)


def _room_on_the_right(axes: Axes, share: float) -> None:
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + share * (high - low))


def _ticks(axis: Any, text: Callable[[float], str], most: int = 8) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(numticks=most))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_locator(NullLocator())


def _broken(name: str) -> str:
    return name.replace(", ", ",\n")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _style(method: str) -> MethodStyle:
    return method_style(method_family(method))
