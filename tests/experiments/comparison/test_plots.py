"""Plots of a comparison: nothing of them is cut off."""

from dataclasses import replace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from softhub.experiments.comparison import METHODS
from softhub.experiments.comparison.plots import storage
from softhub.experiments.comparison.summary import summarize
from softhub.plotting import legend_outside, style
from tests.experiments.comparison.rows import GROUPS, REFERENCES, answers, row


def legend_ends(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    return box.x0, figure.bbox.width - box.x1


def test_the_legend_of_all_methods_fits():
    names = [name for name in METHODS if name not in ("majority label", "few-shot")]
    base = row("", answers(0.8))
    rows = [
        replace(base, method=name, bytes=10**at) for at, name in enumerate([*names, "4-shot"], 1)
    ]
    figure = storage(summarize(rows, REFERENCES, GROUPS))
    assert min(legend_ends(figure)) >= 0
    assert len(figure.legends[0].texts) == 10


@pytest.mark.parametrize("labels", [["a" * 30] * 5, ["a", "b" * 60, "c", "d" * 60], ["a" * 300]])
def test_a_legend_has_as_many_columns_as_fit(labels):
    with style():
        figure = Figure(figsize=(7.6, 3), layout="constrained")
        axes = figure.subplots()
        for label in labels:
            axes.plot([1, 2], label=label)
        legend_outside(figure, axes)
        left, right = legend_ends(figure)
    assert left >= 0
    assert right >= 0 or len(labels) == 1
