"""Learning rates: numbers, and the rate that is scaled to a base's embeddings."""

import math

import pytest
import torch

from softhub.config import parse_config
from softhub.errors import ConfigError, TrainingError
from softhub.model.loading import load_base
from softhub.training import PromptTrainingArguments
from softhub.training.learning_rate import (
    SHARE,
    embedding_scale,
    scaled_rate,
)


@pytest.mark.parametrize("value", ["fast", -1, 0.0, math.inf, math.nan])
def test_what_is_no_rate_is_refused(value, tmp_path):
    with pytest.raises(TrainingError, match=r"expected a number above 0.*scaled to the base"):
        PromptTrainingArguments(output_dir=str(tmp_path), learning_rate=value)


def test_rates_are_read_from_flags_and_files(tmp_path):
    def read(*flags, lines=""):
        config = tmp_path / "config.yaml"
        config.write_text(f"output_dir: {tmp_path}\n{lines}")
        (args,) = parse_config(PromptTrainingArguments, argv=["--config", str(config), *flags])
        return args.learning_rate, args.rule

    assert read() == (None, "scaled")
    for flag in ("--learning-rate", "--learning_rate"):
        assert read(flag, "3e-2") == (0.03, None)
    assert read(lines="learning_rate: 1e-4") == (0.0001, None)
    with pytest.raises((ConfigError, TrainingError), match="quick"):
        read("--learning_rate", "quick")


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


def test_adafactor_learns_at_half_the_rate(toy_fit):
    base, result = toy_fit(max_steps=12, learning_rate=None, optim="adafactor")
    kept = result.prompt.manifest.provenance["training"]
    assert kept["optim"] == "adafactor"
    assert kept["learning_rate"] == pytest.approx(scaled_rate(base) / 2)
    dev = [logs["eval_loss"] for logs in result.history if "eval_loss" in logs]
    assert dev[-1] < dev[0]
