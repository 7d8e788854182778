"""The picture of a run: it shows what was logged, and copes with whatever that was."""

import math
import runpy
import sys
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from softhub.training import curve
from softhub.training.curve import draw_curve, points_of, write_curve
from softhub.training.running import FitResult
from tests.prompts import MOOD, soft_prompt

NAN = math.nan
TRAIN = [{"step": n, "loss": 2.0 / n, "learning_rate": 0.01 * (8 - n)} for n in range(1, 8)]
DEV = [
    {
        "step": n,
        "eval_loss": 1.5 / n,
        "eval_macro_f1": 0.4,
        "eval_accuracy": n / 10,
        "eval_runtime": 2,
    }
    for n in (2, 4, 6)
]


def lines_of(figure):
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for axes in figure.axes
        for line in axes.get_lines()
    }


def test_losses_rate_best_step_and_the_first_metric_are_drawn():
    figure = draw_curve([*TRAIN, *DEV], title="mood on a base", best_step=4)
    left, score, rate = figure.axes
    lines = lines_of(figure)
    assert lines["loss on training batches"][1] == [2.0 / n for n in range(1, 8)]
    assert lines["loss on dev"] == ([2, 4, 6], [0.75, 0.375, 0.25])
    assert lines["best step: 4"][0] == [4, 4]
    assert lines["learning rate"][0] == list(range(1, 8))
    assert score.get_title(loc="left") == "Macro f1 on dev, %"
    assert score.get_lines()[0].get_ydata() == pytest.approx([40, 40, 40])
    assert left.get_yscale() == "log"
    assert rate.get_ylabel() == "learning rate" and len(rate.get_yticks()) > 2
    assert figure.get_suptitle() == "mood on a base"


@pytest.mark.parametrize(
    ("history", "panels"),
    [
        ([{"step": 1, "loss": 0.5}], 1),
        ([{"step": 1, "loss": 0.0}], 1),
        ([{"step": 1, "loss": 0.5}, {"step": 2, "loss": NAN}, {"step": 3, "loss": math.inf}], 1),
        ([{"step": 1, "eval_accuracy": 0.5}], 1),
        ([{"step": 3, "eval_loss": 0.5, "eval_accuracy": NAN, "learning_rate": 0.0}], 2),
    ],
)
def test_little_and_bad_values_are_drawn_too(history, panels, recwarn):
    figure = draw_curve(history, title="$x_2$ " * 60, best_step=1)
    figure.canvas.draw()
    assert len(figure.axes) == panels
    assert not recwarn.list


@pytest.mark.parametrize("history", [[], [{"step": 1, "loss": NAN}], [{"step": 2, "epoch": 1.0}]])
def test_nothing_to_draw_is_no_picture(history):
    assert draw_curve(history, title="") is None


def test_points_are_numbers_by_step():
    history = [{"step": 1, "loss": 1}, {"step": 2, "loss": NAN}, {"step": 2, "eval_loss": 3}]
    assert points_of(history, "loss") == {1: 1.0}


def test_files_name_task_base_length_and_seed(tmp_path):
    base = SimpleNamespace(
        name="example/tiny-llama",
        task_type="CAUSAL_LM",
        hidden_size=32,
        quantization=None,
        fingerprint=None,
    )
    prompt = soft_prompt(base, 4, MOOD, seed=3)
    result = FitResult(prompt, [*TRAIN, *DEV], 0.25, 6, 7, 1.0, 1.0, 2**20)
    path = write_curve(tmp_path / "run", result)
    assert path == tmp_path / "run" / "curve.png"
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    root = ElementTree.fromstring(path.with_suffix(".svg").read_text(encoding="utf-8"))
    shown = "".join(root.itertext())
    assert "mood on example/tiny-llama: 4 virtual tokens, seed 3" in shown
    assert write_curve(tmp_path / "none", replace(result, history=[])) is None
    assert not (tmp_path / "none").exists()


def test_matplotlib_waits_for_a_picture(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # importing it would fail
    assert "draw_curve" in runpy.run_path(curve.__file__)
