"""Whether two bases are the same: exact, otherwise quantised, unknown or different."""

import copy
import json

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM

from softhub.model.fingerprint import compare_fingerprints, compute_fingerprint
from softhub.model.loading import load_base
from tests.requantized import requantize
from tests.tiny import BUILDERS, build_base, build_tokenizer, llama_like

Q = gguf.GGMLQuantizationType


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return AutoTokenizer.from_pretrained(tiny_base("llama"))


@pytest.fixture
def model(tiny_base):
    """A fresh tiny Llama; its norm weights are no longer all 1, as after any pretraining."""
    model = AutoModelForCausalLM.from_pretrained(tiny_base("llama"))
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.copy_(1 + 0.3 * torch.randn_like(weight))
    return model


@pytest.fixture
def print_of(tokenizer):
    return lambda model, quantization=None: compute_fingerprint(model, tokenizer, quantization)


def tuned(model, *, only=None, steps=4, rate=1e-5):
    """A sibling after a few steps of AdamW; `only` names the parameters that are trained."""
    sibling = copy.deepcopy(model).train()
    chosen = [p for name, p in sibling.named_parameters() if only is None or only in name]
    optimizer = torch.optim.AdamW(chosen, lr=rate)
    torch.manual_seed(0)
    for _ in range(steps):
        ids = torch.randint(6, 300, (2, 12))
        sibling(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return sibling.eval()


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_reloaded_base_is_exact_in_every_dtype(kind, tiny_base, loaded):
    recorded = json.loads(json.dumps(dict(loaded(kind).fingerprint)))
    for dtype in ("float32", "bfloat16", "float16"):
        present = load_base(tiny_base(kind), dtype=dtype).fingerprint
        assert present["dtype"] == dtype
        assert compare_fingerprints(recorded, present).kind == "exact"
        assert compare_fingerprints(present, recorded).kind == "exact"
    assert len(json.dumps(recorded)) < 4096


def test_two_half_precisions_are_compared_roughly(model, print_of):
    """Float32 weights rounded either way have no digits in common to hash."""
    bf16 = print_of(copy.deepcopy(model).bfloat16())
    fp16 = print_of(copy.deepcopy(model).half())
    assert compare_fingerprints(bf16, fp16).kind == "unknown"
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(0.01)
    assert compare_fingerprints(bf16, print_of(model.half())).kind == "different"


@pytest.mark.parametrize("only", [None, "q_proj", "down_proj", "embed_tokens"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_lightly_tuned_sibling_is_different(only, dtype, model, print_of):
    """Also one whose linear layers alone changed, as a merged LoRA's do."""
    sibling = tuned(model, only=only)
    verdict = compare_fingerprints(print_of(model.to(dtype)), print_of(sibling.to(dtype)))
    assert verdict.kind == "different"
    assert "differ" in verdict.reason


def test_another_model_of_the_same_shape_is_different_quantised_or_not(
    model, print_of, tmp_path, tiny_base
):
    other = AutoModelForCausalLM.from_pretrained(build_base("llama", tmp_path / "other", seed=1))
    assert compare_fingerprints(print_of(model), print_of(other)).kind == "different"
    quantized = print_of(requantize(other, Q.Q8_0), "gguf-q8_0")
    assert compare_fingerprints(print_of(model), quantized).kind == "different"
    # Norms that training never moved are the same everywhere: the sketch has to tell.
    still = AutoModelForCausalLM.from_pretrained(tiny_base("llama"))
    verdict = compare_fingerprints(print_of(still), quantized)
    assert verdict.kind == "different"
    assert "apart" in verdict.reason


@pytest.mark.parametrize("kind", [Q.Q8_0, Q.Q4_0, Q.Q4_1], ids=lambda kind: kind.name)
def test_quantised_weights_are_the_same_base(kind, model, print_of):
    declared = f"gguf-{kind.name.lower()}"
    quantized = print_of(requantize(model, kind), declared)
    verdict = compare_fingerprints(print_of(model), quantized)
    assert verdict.kind == "quantized"
    assert declared in verdict.reason and "plain" in verdict.reason
    again = print_of(requantize(model, kind), declared)
    assert compare_fingerprints(quantized, again).kind == "exact"
    if kind != Q.Q8_0:
        eight = print_of(requantize(model, Q.Q8_0), "gguf-q8_0")
        assert compare_fingerprints(eight, quantized).kind == "quantized"


@pytest.mark.parametrize("kind", [Q.Q8_0, Q.Q4_1], ids=lambda kind: kind.name)
def test_a_tuned_sibling_does_not_pass_as_quantised(kind, model, print_of):
    sibling = requantize(tuned(model, only="norm", rate=1e-3), kind)
    verdict = compare_fingerprints(print_of(model), print_of(sibling, "gguf"))
    assert verdict.kind == "different"
    assert "norm" in verdict.reason


def test_quantisation_has_to_be_declared(model, print_of):
    quantized = print_of(requantize(model, Q.Q8_0))
    assert compare_fingerprints(print_of(model), quantized).kind == "different"


@pytest.mark.parametrize("size", [390, 448, 520])
def test_a_resized_vocabulary_is_no_difference(size, model, print_of):
    before = print_of(model)
    model.resize_token_embeddings(size)
    after = print_of(model)
    assert after["vocab_size"] == size != before["vocab_size"]
    assert compare_fingerprints(before, after).kind == "exact"


def test_large_tables_are_sampled_beyond_their_first_rows(tokenizer, model):
    model.resize_token_embeddings(3000)
    before = compute_fingerprint(model, tokenizer, None)
    with torch.no_grad():
        model.get_input_embeddings().weight[1984] += 1
    after = compute_fingerprint(model, tokenizer, None)
    assert compare_fingerprints(before, after).kind == "different"


def test_another_tokenizer_is_a_difference(model, tokenizer):
    other = build_tokenizer()
    backend = json.loads(other.backend_tokenizer.to_str())
    backend["model"]["merges"].pop()
    other._tokenizer = type(other.backend_tokenizer).from_str(json.dumps(backend))
    verdict = compare_fingerprints(
        compute_fingerprint(model, tokenizer, None), compute_fingerprint(model, other, None)
    )
    assert (verdict.kind, verdict.reason) == ("different", "the tokenizer differs")


def test_added_and_unused_tokens_are_no_difference(model, tokenizer):
    """A GGUF file lists them in the vocabulary, where the Hub's files keep them apart."""
    recorded = compute_fingerprint(model, tokenizer, None)
    other = build_tokenizer()
    other.add_tokens(["<tool>", "<|extra|>"])
    assert compute_fingerprint(model, other, None)["tokenizer"] == recorded["tokenizer"]
    backend = json.loads(other.backend_tokenizer.to_str())
    backend["model"]["vocab"] |= {f"[PAD{n}]": n for n in range(500, 510)}
    other._tokenizer = type(other.backend_tokenizer).from_str(json.dumps(backend))
    assert compute_fingerprint(model, other, None)["tokenizer"] == recorded["tokenizer"]


@pytest.mark.parametrize(
    ("key", "words"),
    [("model_type", "model type"), ("hidden_size", "hidden size"), ("num_layers", "layers")],
)
def test_another_structure_is_named_with_both_sides(key, words, model, print_of):
    verdict = compare_fingerprints({**print_of(model), key: "gpt2"}, print_of(model))
    assert verdict.kind == "different"
    assert words in verdict.reason and "(gpt2 vs." in verdict.reason


def test_what_cannot_be_compared_is_unknown(model, print_of):
    present = print_of(model)
    assert compare_fingerprints(None, present).kind == "unknown"
    assert compare_fingerprints({}, present).kind == "unknown"
    packed = {**present, "matrices": None, "quantization": None}
    verdict = compare_fingerprints(packed, present)
    assert (verdict.kind, verdict.reason) == ("unknown", "the matrices could not be compared")
    for damage in ({"norms": None}, {"sketch": None}, {"sketch": [1.0]}):
        quantized = print_of(requantize(model, Q.Q4_0), "gguf-q4_0") | damage
        assert compare_fingerprints(quantized, present).kind == "unknown"


# --- what the matrices and norms do not show ------------------------------------------------------


def experts():
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**llama_like(**sizes)))


@pytest.mark.parametrize(
    ("build", "replaced"),
    [(experts, "experts"), (experts, "lm_head"), (BUILDERS["gpt2"], "bias")],
    ids=["experts", "untied head", "biases"],
)
def test_other_weights_are_another_base(build, replaced, print_of):
    torch.manual_seed(0)
    model = build()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in other.named_parameters():
            if replaced in name:
                weight.normal_()
    recorded = json.loads(json.dumps(print_of(model)))
    verdict = compare_fingerprints(recorded, print_of(other))
    assert (verdict.kind, verdict.reason) == ("different", "the sampled other weights differ")
    assert compare_fingerprints(recorded, print_of(model)).kind == "exact"
    # Adapters that were made before these weights were sampled load as they did.
    del recorded["others"], recorded["settings"]
    assert compare_fingerprints(recorded, print_of(other)).kind == "exact"


def test_a_tied_head_is_the_same_as_a_copy_of_the_embeddings(print_of):
    tied = BUILDERS["qwen2"]()
    apart = copy.deepcopy(tied)
    apart.lm_head.weight = torch.nn.Parameter(tied.lm_head.weight.detach().clone())
    assert compare_fingerprints(print_of(tied), print_of(apart)).kind == "exact"


def test_other_settings_of_equal_weights_are_named(model, print_of):
    recorded = json.loads(json.dumps(print_of(model)))
    model.config.rope_parameters = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4}
    verdict = compare_fingerprints(recorded, print_of(model))
    assert verdict.kind == "unknown"
    assert "all sampled weights are equal, but the settings differ: rope_type" in verdict.reason
    assert "(default vs. linear)" in verdict.reason
    quantized = print_of(requantize(model, Q.Q8_0), "gguf-q8_0")
    assert compare_fingerprints(recorded, quantized).kind == "unknown"


def test_settings_without_effect_or_on_one_side_are_no_difference(model, print_of):
    recorded = json.loads(json.dumps(print_of(model)))
    for name, value in {
        "attention_dropout": 0.3,
        "initializer_range": 0.5,
        "use_cache": False,
        "pad_token_id": 7,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 9.999999974752427e-07,  # 1e-6 as float32, as in a GGUF file
        "new_in_a_later_release": 3.0,
    }.items():
        setattr(model.config, name, value)
    assert compare_fingerprints(recorded, print_of(model)).kind == "exact"
    assert compare_fingerprints(print_of(model), recorded).kind == "exact"


def test_a_setting_that_is_not_finite_is_left_out(model, print_of):
    model.config.swiglu_limit = float("inf")
    assert "swiglu_limit" not in print_of(model)["settings"]
