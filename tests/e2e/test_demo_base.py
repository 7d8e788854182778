"""The demo's real base: its fingerprint in other dtypes and quantisations, and a full batch."""

import copy

import gguf
import pytest
import torch

from softhub.inference.engine import PromptModel
from softhub.model.fingerprint import compare_fingerprints, compute_fingerprint
from softhub.model.loading import load_base
from tests.prompts import MOOD, soft_prompt
from tests.requantized import requantize

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def base(demo_base_file):
    return load_base(demo_base_file, dtype="float32")


def verdict_of(base, model, quantization):
    present = compute_fingerprint(model, base.tokenizer, quantization)
    return compare_fingerprints(base.fingerprint, present).kind


def tuned(base, *, only=""):
    """A sibling after three steps of AdamW at a fine-tuning rate."""
    model = copy.deepcopy(base.model).train()
    chosen = [weight for name, weight in model.named_parameters() if only in name]
    for weight in chosen:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(chosen, lr=1e-5)
    ids = torch.tensor([base.tokenizer("The battery lasts a whole day.")["input_ids"]])
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def test_the_same_weights_are_exact_in_every_dtype(base, demo_base_file):
    assert base.quantization == "gguf-q4_1"
    for dtype in ("bfloat16", "float16"):
        other = load_base(demo_base_file, dtype=dtype)
        assert compare_fingerprints(base.fingerprint, other.fingerprint).kind == "exact"


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_another_quantisation_is_the_same_base(kind, base):
    model = requantize(base.model, gguf.GGMLQuantizationType[kind])
    assert verdict_of(base, model, f"gguf-{kind.lower()}") == "quantized"
    assert verdict_of(base, model, base.quantization) != "exact"


def test_a_lightly_tuned_sibling_is_different(base):
    """As floating-point weights, and as another quantisation: training moved its norms."""
    sibling = tuned(base)
    assert verdict_of(base, sibling, base.quantization) == "different"
    again = requantize(sibling, gguf.GGMLQuantizationType.Q4_0)
    assert verdict_of(base, again, "gguf-q4_0") == "different"


def test_a_text_alone_and_among_longer_ones_scores_the_same(base):
    model = PromptModel(base)
    vectors = base.embed(torch.arange(100, 116)).detach()
    prompt = soft_prompt(base, 16, MOOD)
    model.load_prompt(type(prompt)(vectors, prompt.manifest), name="mood")
    text = "Great value, easy to use."
    longer = [f"{text} The sound is good and the screen is not. " * (2 + n % 3) for n in range(31)]
    alone = model.predict([text], prompt="mood")[0].scores
    for side in ("left", "right"):
        base.tokenizer.padding_side = side
        among = model.predict([text, *longer], prompt="mood")[0].scores
        assert among == pytest.approx(alone, abs=1e-4)
