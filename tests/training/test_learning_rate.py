"""Learning rates: numbers, rules, and the range test that finds one."""

import json
import math
import sys

import pytest
import torch

from softhub.config import parse_config
from softhub.errors import ConfigError, TrainingError
from softhub.model.base import load_base
from softhub.training import PromptTrainingArguments
from softhub.training.learning_rate import (
    SHARE,
    embedding_scale,
    scaled_rate,
)
from softhub.training.lr_finder import STEPS, RangeTest

AUTO = {"learning_rate": None, "learning_rate_rule": "auto"}


@pytest.mark.parametrize("value", ["fast", -1, 0.0, math.inf, math.nan])
def test_what_is_no_rate_is_refused(value, tmp_path):
    with pytest.raises(TrainingError, match=r"expected a number above 0.*one of scaled, auto"):
        PromptTrainingArguments(output_dir=str(tmp_path), learning_rate=value)


def test_a_number_and_a_rule_exclude_each_other(tmp_path):
    with pytest.raises(TrainingError, match=r"both learning_rate \(0.1\) and .*rule \(auto\)"):
        PromptTrainingArguments(
            output_dir=str(tmp_path), learning_rate=0.1, learning_rate_rule="auto"
        )
    with pytest.raises(TrainingError, match="learning_rate_rule is 'quick'; expected one of scal"):
        PromptTrainingArguments(output_dir=str(tmp_path), learning_rate_rule="quick")


def test_rates_and_rules_are_read_from_flags_and_files(tmp_path):
    def read(*flags, lines=""):
        config = tmp_path / "config.yaml"
        config.write_text(f"output_dir: {tmp_path}\n{lines}")
        (args,) = parse_config(PromptTrainingArguments, argv=["--config", str(config), *flags])
        return args.learning_rate, args.rule

    assert read() == (None, "scaled")
    for flag in ("--learning-rate-rule", "--learning_rate_rule"):
        assert read(flag, "auto") == (None, "auto")
    assert read(lines="learning_rate_rule: auto") == (None, "auto")
    assert read("--learning_rate", "3e-2") == (0.03, None)
    assert read(lines="learning_rate: 1e-4") == (0.0001, None)
    with pytest.raises((ConfigError, TrainingError), match="quick"):
        read("--learning_rate", "quick")
    with pytest.raises((ConfigError, TrainingError), match="quick"):
        read("--learning_rate_rule", "quick")


def test_the_scaled_rate_follows_the_embeddings(tiny_base):
    base = load_base(tiny_base("llama"))
    before = scaled_rate(base)
    rows = base.model.get_input_embeddings().weight
    assert embedding_scale(base) == pytest.approx(float(rows.square().mean().sqrt()), rel=1e-5)
    assert before == pytest.approx(SHARE * embedding_scale(base))
    with torch.no_grad():
        rows.mul_(100)
    assert scaled_rate(base) == pytest.approx(100 * before, rel=1e-5)


def test_the_default_rate_is_kept_in_the_manifest(toy_fit):
    base, result = toy_fit(max_steps=4, learning_rate=None)
    training = result.prompt.manifest.provenance["training"]
    assert training["learning_rate"] == pytest.approx(scaled_rate(base))
    assert training["learning_rate_rule"] == "scaled"
    assert result.range_test is None


def test_adafactor_learns_at_half_the_rate(toy_fit):
    base, result = toy_fit(max_steps=12, learning_rate=None, optim="adafactor")
    kept = result.prompt.manifest.provenance["training"]
    assert kept["optim"] == "adafactor"
    assert kept["learning_rate"] == pytest.approx(scaled_rate(base) / 2)
    dev = [logs["eval_loss"] for logs in result.history if "eval_loss" in logs]
    assert dev[-1] < dev[0]


def test_range_test_takes_a_quarter_of_the_rate_at_the_bottom():
    test = RangeTest()
    for step in range(26):
        rate = 10 ** (-4 + step / 5)
        loss = 2.0 - min(rate / 0.05, 1.0) if rate < 0.2 else 2.0 + 5 * rate
        if test.add(rate, loss):
            break
    assert len(test.rates) < 26  # it stopped on the climb
    assert test.choose(otherwise=9.0) == test.chosen
    bottom = test.rates[test.smoothed.index(min(test.smoothed))]
    assert test.chosen == pytest.approx(bottom / 4)


@pytest.mark.parametrize(
    "losses",
    [
        [1.0, 1.1, 1.2],
        [math.nan] * 8,
        [],
        [0.27, 0.15, 0.15, 0.25, 0.2, 0.21, 0.19, 0.22],  # a start that is good already
    ],
)
def test_without_a_valley_the_range_test_keeps_the_scaled_rate(losses):
    test = RangeTest()
    for step, loss in enumerate(losses):
        test.add(10.0**-step, loss)
    assert test.choose(otherwise=0.5) == 0.5


def test_auto_finds_a_rate_before_the_run_and_leaves_the_start_alone(toy_fit, tmp_path):
    """The run after the test is the run at that rate without a test."""
    _, found = toy_fit(**AUTO, output_dir=str(tmp_path / "auto"))
    assert len(found.range_test.rates) <= STEPS
    assert (tmp_path / "auto" / "range_test.png").read_bytes().startswith(b"\x89PNG")
    state = json.loads((tmp_path / "auto" / "run_state.json").read_text())
    training = found.prompt.manifest.provenance["training"]
    assert state["learning_rate"] == training["learning_rate"] == found.range_test.chosen
    assert training["learning_rate_rule"] == "auto"
    _, plain = toy_fit(learning_rate=found.range_test.chosen, output_dir=str(tmp_path / "plain"))
    assert torch.equal(found.prompt.vectors, plain.prompt.vectors)


def test_a_range_test_that_never_climbs_ends_all_the_same(toy_fit, monkeypatch):
    monkeypatch.setattr("softhub.training.lr_finder._DIVERGED", math.inf)
    _, found = toy_fit(**AUTO, max_steps=4)
    assert len(found.range_test.rates) == STEPS


def test_a_range_test_under_fsdp_is_refused(toy_fit, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(
        TrainingError, match=r"rule='auto' is not supported under FSDP.*on a single GPU"
    ):
        toy_fit(**AUTO)


def test_a_resumed_run_keeps_the_rate_that_was_found(toy_fit, tmp_path, monkeypatch):
    options = {**AUTO, "output_dir": str(tmp_path / "run")}
    _, whole = toy_fit(**options)
    # Running another range test would fail.
    monkeypatch.setattr(sys.modules["softhub.training.fit"], "range_test", None)
    _, again = toy_fit(**options, resume=True)
    assert again.range_test == whole.range_test
    assert torch.equal(again.prompt.vectors, whole.prompt.vectors)
