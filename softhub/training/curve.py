"""The learning curve of a run, plotted with its scores."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softhub.metrics import METRICS
from softhub.plotting import INK, legend_outside, plain_log, style, to_png, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from softhub.adapter.manifest import Manifest
    from softhub.training.running import FitResult

CURVE = "curve"
"""Name of the plot, without its suffix."""

_TRAINING, _DEV, _METRIC, _BEST = "#8c8c8c", "#0072B2", "#009E73", "#D55E00"
_LETTERS = 95  # characters of a title per line

Points = dict[float, float]
"""Values by step."""


def write_curve(folder: str | Path, result: FitResult) -> Path | None:
    """Plot the learning curve, as `curve.png` and `curve.svg` in a folder.

    Returns:
        The PNG; None if no finite value was logged.
    """
    title = _title(result.prompt.manifest)
    figure = draw_curve(result.history, title=title, best_step=result.best_step)
    if figure is None:
        return None
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    description = f"Loss and score by training step: {title}"
    svg = to_svg(figure, description)
    (folder / f"{CURVE}.svg").write_text(svg, encoding="utf-8")
    path = folder / f"{CURVE}.png"
    path.write_bytes(to_png(figure, dpi=150))
    return path


def draw_curve(
    history: Sequence[Mapping[str, float]], *, title: str, best_step: int | None = None
) -> Figure | None:
    """Plot the loss on training batches and on dev, the learning rate, and the main metric on dev.

    Args:
        history: What was logged, each mapping with its `step`, as in `FitResult`.
        title: Title of the figure.
        best_step: The step of the best checkpoint.

    Returns:
        The figure; None if there is no finite value.
    """
    training, dev = (points_of(history, key) for key in ("loss", "eval_loss"))
    metric = _metric(history)
    score = points_of(history, f"eval_{metric}") if metric else {}
    if not (training or dev or score):
        return None
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(7.6, 3.5), layout="constrained")
        panels = figure.subplots(1, bool(training or dev) + bool(score), squeeze=False)[0]
        rate = None
        if training or dev:
            _draw_losses(panels[0], training, dev)
            rate = _draw_rate(panels[0], points_of(history, "learning_rate"))
        if metric and score:
            _draw_score(panels[-1], metric, score)
        last = max(logs.get("step", 0) for logs in history)
        for axes in panels:
            _steps(axes, last, best_step if dev or score else None)
        figure.suptitle(textwrap.fill(title, _LETTERS), x=0.01, ha="left", fontsize=10)
        legend_outside(figure, panels[0], *([rate] if rate else []), below=True)
    return figure


def points_of(history: Sequence[Mapping[str, float]], key: str) -> Points:
    """Return the finite values of `key` by step."""
    return {
        logs["step"]: float(logs[key])
        for logs in history
        if key in logs and math.isfinite(logs[key]) and math.isfinite(logs.get("step", math.nan))
    }


def _title(manifest: Manifest) -> str:
    tasks = manifest.provenance.get("mixture", {})
    name = (manifest.task or {}).get("name") or ", ".join(tasks) or "soft prompt"
    seed = manifest.provenance.get("seed")
    length = f"{manifest.num_virtual_tokens} virtual tokens"
    ending = f", seed {seed}" if seed is not None else ""
    return f"{name} on {manifest.base_model}: {length}{ending}"


def _metric(history: Sequence[Mapping[str, float]]) -> str | None:
    """Return the task's first metric that was computed on dev."""
    names = (key.removeprefix("eval_") for logs in history for key in logs if key[:5] == "eval_")
    return next((name for name in names if name in METRICS), None)


def _draw_losses(axes: Axes, training: Points, dev: Points) -> None:
    _line(axes, training, color=_TRAINING, linewidth=1.1, label="loss on training batches")
    _line(axes, dev, color=_DEV, marker="o", markersize=4, label="loss on dev")
    positive = min([*training.values(), *dev.values()]) > 0
    if positive:
        axes.set_yscale("log")
        plain_log(axes)
    axes.set_title("Loss (log scale)" if positive else "Loss")


def _draw_rate(axes: Axes, rates: Points) -> Axes | None:
    """Plot the learning rate as a thin line with an axis on the right."""
    if not rates:
        return None
    right: Axes = axes.twinx()
    _line(right, rates, color=INK, linewidth=0.7, linestyle=":", label="learning rate")
    right.set_ylim(0, 1.05 * max(rates.values()) or 1)
    right.set_ylabel("learning rate")
    right.ticklabel_format(axis="y", scilimits=(-2, 3))
    right.grid(visible=False)
    right.spines.right.set_visible(True)
    return right


def _draw_score(axes: Axes, metric: str, score: Points) -> None:
    scaled = {step: METRICS[metric].scale * value for step, value in score.items()}
    _line(axes, scaled, color=_METRIC, marker="o", markersize=4)
    heading, unit = METRICS[metric].heading, METRICS[metric].unit
    axes.set_title(f"{heading[:1].upper()}{heading[1:]} on dev" + (f", {unit}" if unit else ""))


def _line(axes: Axes, points: Points, **style: Any) -> None:
    """Plot values by step; a single one, which makes no line, as a dot."""
    if points:
        steps = sorted(points)
        dot = {"marker": "o", "markersize": 4} if len(points) == 1 else {}
        axes.plot(steps, [points[step] for step in steps], **{**style, **dot})


def _steps(axes: Axes, last: float, best: int | None) -> None:
    """Label the axis of steps with integers from 0 on, and mark the best step."""
    from matplotlib.ticker import MaxNLocator

    if best:
        label = f"best step: {best}"
        axes.axvline(best, color=_BEST, linewidth=1, linestyle="--", label=label)
    axes.set_xlabel("training steps")
    axes.set_xlim(0, 1.02 * last or 1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
