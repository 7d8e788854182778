"""Sampling at the ends of what options may be: no value is answered with a token at random."""

import pytest
import torch

from softhub.inference.processors import Row, RowProcessors
from tests.prompts import TEXTS


@pytest.mark.parametrize("temperature", [1e-12, 1e-40, 1e-46, 5e-324])
@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_temperature_too_small_to_divide_by_is_greedy(kind, temperature, model_of):
    model = model_of(kind)
    options = {"max_new_tokens": 6, "repetition_penalty": 1.2, "suppress_tokens": [9]}
    expected = model.generate(TEXTS, prompt="summary", **options)
    sampled = {"do_sample": True, "temperature": temperature, "top_k": 0, "seed": 3}
    assert model.generate(TEXTS, prompt="summary", **options, **sampled) == expected


@pytest.mark.parametrize("option", ["repetition_penalty", "temperature"])
def test_scores_that_overflow_are_the_most_probable(option, loaded):
    """Those of tokens that were seen, divided by a tiny penalty, are infinite."""
    options = {"do_sample": True, "top_k": 0, option: 1e-40}
    processors = RowProcessors(loaded("llama"), [Row([5, 7], seed=1)], options, width=2)
    scores = torch.full((1, 400), -3.0).index_fill_(1, torch.tensor([5, 7]), 2.0)
    for _ in range(8):
        assert int(processors(torch.tensor([[5, 7]]), scores).argmax()) in (5, 7)
