"""A prefix is keys and values of every layer, and plain PEFT answers with it as softhub does."""

import json
import warnings
from copy import deepcopy

import pytest
import torch
from peft import (
    CartridgeConfig,
    PeftModel,
    PrefixTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from softhub.adapter.manifest import PrefixShape
from softhub.errors import BaseModelError, IncompatiblePrompt
from softhub.inference.engine import PromptModel
from softhub.model.loading import load_base
from softhub.model.prefix import (
    prefix_of,
    prefix_shape,
    prefix_template,
    vectors_of,
    vectors_of_prompt,
)
from softhub.model.prompt import SoftPrompt
from tests.families import family_base
from tests.prompts import MOOD, SUMMARY, TEXTS, prefix, soft_prompt
from tests.references import assert_equal_in_float32, sequence_logprob
from tests.tiny import HIDDEN_SIZE

KINDS = ["llama", "qwen3", "gpt2", "opt"]


def plain_model(folder, adapter):
    """Plain PEFT, in which a warning is an error, except of what transformers will remove."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = AutoModelForCausalLM.from_pretrained(folder)
        return PeftModel.from_pretrained(model, adapter).eval()


def mood_scores(model, tokenizer, text):
    """Label scores of plain PEFT for one text."""
    ids, scores = tokenizer(MOOD.template.render({"text": text}))["input_ids"], {}
    for label, words in MOOD.verbalizer.words:
        answers = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        each = [sequence_logprob(model, ids, answer) for answer in answers]
        scores[label] = torch.tensor(each).logsumexp(0).item()
    return scores


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_matrix_and_its_keys_and_values_are_the_same_numbers(kind, loaded):
    base = loaded(kind)
    own = prefix(base, 5)
    layers = prefix_of(own.vectors, prefix_template(base))
    assert torch.equal(vectors_of(layers), own.vectors)
    width = prefix_shape(base).layer_width
    # PEFT's layout: a token's keys of the first layer, its values, its keys of the second.
    keys = layers.layers[1][0][0].transpose(0, 1).flatten(1)  # [heads, P, d] to [P, heads * d]
    assert torch.equal(keys, own.vectors[:, 2 * width : 3 * width])


def test_a_prefix_follows_a_base_that_was_cast_or_moved(folder_of):
    """Trainer moves a base to the GPU after a prefix's shape was read from it on the CPU."""
    base = load_base(folder_of("llama"))
    own = prefix(base, 3)
    base.model.to(torch.bfloat16)
    for part in prefix_of(own.vectors, prefix_template(base)).layers[0]:
        assert part.dtype == torch.bfloat16


def test_keys_and_values_are_in_the_precision_of_the_base_under_autocast(folder_of):
    base = load_base(folder_of("llama"))
    vectors = torch.randn(3, base.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, template = vectors_of_prompt(base, vectors), prefix_template(base)
    assert template.layers[0][0].dtype == torch.float32
    assert torch.equal(found, vectors_of_prompt(base, vectors))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_plain_peft_gives_the_same_answers_alone_and_padded(
    kind, stored, loaded, folder_of, tmp_path
):
    base = loaded(kind)
    own = prefix(base, 7, MOOD)
    own = SoftPrompt(own.vectors.to(stored).float(), own.manifest)
    folder = own.save_pretrained(tmp_path / "adapter")
    assert load_file(folder / "adapter_model.safetensors")["prompt_embeddings"].dtype == stored
    peft_model = plain_model(folder_of(kind), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder_of(kind))
    model = PromptModel(base)
    name = model.load_prompt(folder)
    found = model.predict(TEXTS, prompt=name)
    for prediction, text in zip(found, TEXTS, strict=True):
        assert_equal_in_float32(prediction.scores, mood_scores(peft_model, tokenizer, text))
    # Without position_ids PEFT counts positions from the first index, with a CARTRIDGE too, so its
    # batches can be padded on the right only. Its `generate` passes them: tests/model/test_export.
    rows = tokenizer(
        [MOOD.template.render({"text": text}) for text in TEXTS],
        return_tensors="pt",
        padding=True,
        padding_side="right",
    )
    with torch.no_grad():
        logits = peft_model(**rows).logits
        for index, length in enumerate(rows["attention_mask"].sum(1).tolist()):
            alone = peft_model(input_ids=rows["input_ids"][index : index + 1, :length]).logits
            assert_equal_in_float32(logits[index, length - 1], alone[0, -1])


def test_plain_peft_continues_a_text_in_the_same_way(loaded, folder_of, tmp_path):
    base = loaded("llama")
    folder = prefix(base, 7, SUMMARY).save_pretrained(tmp_path / "adapter")
    peft_model = plain_model(folder_of("llama"), folder)
    model = PromptModel(base)
    name = model.load_prompt(folder)
    for text, found in zip(TEXTS, model.generate(TEXTS, prompt=name), strict=True):
        inputs = base.tokenizer(SUMMARY.template.render({"text": text}), return_tensors="pt")
        with torch.no_grad():
            tokens = peft_model.generate(**inputs, max_new_tokens=6, do_sample=False)
        new = tokens[0, inputs["input_ids"].shape[1] :]
        assert base.tokenizer.decode(new, skip_special_tokens=True) == found


FOREIGN = {
    "prefix": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    "projected": PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=24
    ),
    "cartridge": CartridgeConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, num_frozen_tokens=2),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_adapters_of_plain_peft_are_loaded_and_saved_again(name, kind, folder_of, tmp_path):
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_pretrained(folder_of(kind))
    peft_model = get_peft_model(plain, deepcopy(FOREIGN[name])).eval()  # PEFT fills it in
    peft_model.save_pretrained(tmp_path / "foreign")
    tokenizer = AutoTokenizer.from_pretrained(folder_of(kind))
    prompt = SoftPrompt.from_pretrained(tmp_path / "foreign")
    assert prompt.prompt_type == "prefix" and prompt.hidden_size is None
    live = PromptModel.from_peft(peft_model, tokenizer)
    base = load_base(folder_of(kind))
    own = plain_model(folder_of(kind), prompt.save_pretrained(tmp_path / "own"))
    model = PromptModel(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # plain PEFT records no fingerprint
        model.load_prompt(prompt, name="foreign")
    found = model.predict(TEXTS, prompt="foreign", task=MOOD)
    again = live.predict(TEXTS, prompt="default", task=MOOD)
    for prediction, other, text in zip(found, again, TEXTS, strict=True):
        expected = mood_scores(peft_model, tokenizer, text)
        assert_equal_in_float32(prediction.scores, expected)
        assert_equal_in_float32(other.scores, expected)
        assert_equal_in_float32(mood_scores(own, tokenizer, text), expected)


def test_numbers_are_stored_in_bfloat16_where_that_rounds_none(loaded, tmp_path):
    exact = prefix(loaded("llama"), 3)
    rounded = SoftPrompt(exact.vectors.bfloat16().float(), exact.manifest)
    for prompt, dtype in ((exact, torch.float32), (rounded, torch.bfloat16)):
        folder = prompt.save_pretrained(tmp_path / str(dtype))
        assert load_file(folder / "adapter_model.safetensors")["prompt_embeddings"].dtype == dtype
        assert torch.equal(SoftPrompt.from_pretrained(folder).vectors, prompt.vectors)


def test_a_prefix_of_the_demo_base_has_kilobytes(loaded, tmp_path):
    shape = PrefixShape(num_layers=30, num_key_value_heads=3, head_dim=64)  # SmolLM2-135M
    manifest = soft_prompt(loaded("llama"), 20, MOOD, hidden_size=None, prefix=shape).manifest
    vectors = torch.randn(20, shape.width).bfloat16().float()
    folder = SoftPrompt(vectors, manifest).save_pretrained(tmp_path / "adapter")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 480_000
    assert (folder / "adapter_model.safetensors").stat().st_size <= 470_000
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["token_dim"], config["num_layers"]) == (
        "PREFIX_TUNING",
        192,
        30,
    )


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("t5", "it is an encoder-decoder"),
        ("mistral", "sliding windows or recurrent states .*Sliding"),
        ("gemma2", "sliding windows or recurrent states"),
    ],
)
def test_a_base_that_cannot_run_prefixes_is_refused_with_the_reason(kind, reason, loaded):
    with pytest.raises(BaseModelError, match=f"cannot run a prefix: .*{reason}.*prompt"):
        prefix_shape(loaded(kind))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("mamba", "it takes no keys and values, as recurrent models do not"),
        ("jamba", "it has .*recurrent states .LinearAttentionLayer"),
        ("rwkv", "it takes no keys and values, as recurrent models do not"),
    ],
)
def test_recurrent_bases_are_refused_with_the_reason(kind, reason):
    with pytest.raises(BaseModelError, match=f"{kind} cannot run a prefix: {reason}.*prompt"):
        prefix_shape(family_base(kind))


def test_a_base_that_checkpoints_activations_is_refused(folder_of):
    base = load_base(folder_of("llama"))
    prefix_shape(base)
    base.model.gradient_checkpointing_enable()
    with pytest.raises(BaseModelError, match="activation checkpointing is on"):
        prefix_shape(base)


def test_keys_and_values_of_different_sizes_are_refused():
    """DeepSeek's keys are wider than its values, which one matrix of PEFT's cannot hold."""
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    from softhub.model.base import BaseModel
    from tests.tiny import build_tokenizer

    config = DeepseekV3Config(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=32,
        num_hidden_layers=1,
        first_k_dense_replace=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
    )
    model = DeepseekV3ForCausalLM(config).eval().requires_grad_(False)
    base = BaseModel(model, build_tokenizer(), "org/deep", None, None)
    with pytest.raises(BaseModelError, match="different sizes"):
        prefix_shape(base)


def test_a_prefix_runs_on_its_own_base_only(loaded):
    for other in ("gpt2", "t5"):
        with pytest.raises(IncompatiblePrompt, match=r"This prefix was made for .*tiny-llama"):
            prefix(loaded("llama"), 4).check_fits(loaded(other))
    with pytest.raises(IncompatiblePrompt, match=f"width {HIDDEN_SIZE + 1}"):
        soft_prompt(loaded("llama"), 4, hidden_size=HIDDEN_SIZE + 1).check_fits(loaded("llama"))
