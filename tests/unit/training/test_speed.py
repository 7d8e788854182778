"""What is said of a run's speed is about that run."""

import pytest


def test_a_resumed_run_counts_its_own_examples(toy_fit):
    options = {"eval_strategy": "no", "load_best_model_at_end": False}
    toy_fit(max_steps=8, **options)
    _, resumed = toy_fit(max_steps=12, resume=True, **options)
    assert resumed.steps == 12
    trained = resumed.examples_per_second * resumed.seconds
    # The seconds hold what came before the first step too; all twelve steps would be 96.
    assert trained == pytest.approx(4 * 8, rel=0.5)
