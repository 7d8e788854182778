"""Bases from folders and GGUF files, and what is said when there is none."""

import json
import shutil

import gguf
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BitsAndBytesConfig,
)

from softhub.adapter.portable import is_hub_name
from softhub.errors import BaseModelError, InvalidAdapter, MissingDependency
from softhub.inference.engine import PromptModel
from softhub.model.loading import load_base, load_tokenizer
from tests.references import assert_equal_in_float32
from tests.tiny import BUILDERS, HIDDEN_SIZE, build_tokenizer


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_folder_is_loaded_frozen_and_in_eval_mode(kind, tiny_base):
    base = load_base(tiny_base(kind))
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert base.name == f"tiny-{kind}"
    assert base.hidden_size == HIDDEN_SIZE
    assert base.dtype == torch.float32
    assert base.quantization is None
    assert base.task_type == ("SEQ_2_SEQ_LM" if kind == "t5" else "CAUSAL_LM")
    assert base.max_positions == (None if kind == "t5" else 512)


def test_embedding_scales_as_the_model_does(loaded):
    """Gemma multiplies by the root of its width, inside the module."""
    base = loaded("gemma2")
    found = base.embed(torch.tensor([[5, 6]]))
    torch.testing.assert_close(found[0], base.embedding[[5, 6]] * HIDDEN_SIZE**0.5)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_the_dtype_is_the_caller_s(dtype, tiny_base):
    assert load_base(tiny_base("llama"), dtype=dtype).dtype == torch.bfloat16


def test_the_dtype_is_else_the_checkpoint_s(tiny_base, tmp_path):
    load_base(tiny_base("llama"), dtype="float16").model.save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    assert load_base(tmp_path).dtype == torch.float16


# --- a loaded model ---


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_a_loaded_model_shares_its_weights_and_stays_as_it_was(kind, tiny_base):
    auto = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    model = auto.from_pretrained(tiny_base(kind)).train()
    base = load_base(model, tokenizer=build_tokenizer())
    assert base.name == f"tiny-{kind}"
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert model.training and model.get_input_embeddings().training
    assert all(parameter.requires_grad for parameter in model.parameters())
    shared = {p.data_ptr() for p in model.parameters()}
    assert {p.data_ptr() for p in base.model.parameters()} == shared  # tied weights stay tied
    assert base.fingerprint == load_base(tiny_base(kind)).fingerprint | {
        "tokenizer": base.fingerprint["tokenizer"]
    }


def test_a_loaded_model_without_a_name_needs_one_for_cards(tiny_base):
    model = AutoModelForCausalLM.from_config(load_base(tiny_base("llama")).model.config)
    model.config.name_or_path = model.name_or_path = ""
    assert load_base(model, tokenizer=build_tokenizer()).name == "local-base"
    assert load_base(model, tokenizer=build_tokenizer(), name="org/base").name == "org/base"


def test_a_loaded_model_comes_with_its_tokenizer_and_without_options(tiny_base):
    model = AutoModelForCausalLM.from_pretrained(tiny_base("llama"))
    with pytest.raises(BaseModelError, match=r"LlamaForCausalLM with no tokenizer: .*tokenizer="):
        load_base(model)
    with pytest.raises(BaseModelError, match=r"with dtype, .* to from_pretrained"):
        load_base(model, tokenizer=build_tokenizer(), dtype="float16")
    for other in (model.model, torch.nn.Linear(2, 2)):
        with pytest.raises(BaseModelError, match="expected a transformers model with a language"):
            load_base(other, tokenizer=build_tokenizer())


# --- names ---


@pytest.mark.parametrize(
    ("folder", "name"),
    [("tiny", "tiny"), ("My model (2)..v1", "My-model-2-v1"), ("...", "local-base")],
)
def test_a_folder_s_name_holds_no_path(folder, name, tiny_base, tmp_path, monkeypatch):
    place = tmp_path / "deep" / folder
    shutil.copytree(tiny_base("llama"), place)
    assert load_base(place).name == name
    assert is_hub_name(name)
    monkeypatch.chdir(place)
    assert load_base(".").name == name


def test_a_given_name_wins_and_is_no_path(tiny_base):
    assert load_base(tiny_base("llama"), name="org/base").name == "org/base"
    for name in ("/home/me/base", "../base", "a/b/c", ""):
        with pytest.raises(InvalidAdapter, match="name"):
            load_base(tiny_base("llama"), name=name)


# --- what is not there, or is no base ---


@pytest.mark.parametrize("ref", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c", ""])
def test_a_missing_folder_is_one_sentence(ref):
    with pytest.raises(BaseModelError, match=r"No base model at '(.*nowhere.*|a/b/c|)'.*Hub repo"):
        load_base(ref)


@pytest.mark.parametrize("ref", ["no-such-model", "no-org/no-such-model"])
def test_a_hub_id_that_cannot_be_had_is_one_line(ref):
    with pytest.raises(BaseModelError, match=f"There is no folder '{ref}'") as caught:
        load_base(ref)
    assert "\n" not in str(caught.value)
    assert "network" in str(caught.value)


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BaseModelError, match=r"no folder 'models/mine'.* does not answer"):
        load_base("models/mine")
    with pytest.raises(BaseModelError, match=r"no folder 'models/mine'.* does not answer"):
        load_tokenizer("models/mine")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(BaseModelError, match=r"No base model at .*model\.bin"):
        load_base(tmp_path / "model.bin")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
def test_a_device_that_this_machine_lacks_is_one_line(tiny_base):
    with pytest.raises(BaseModelError, match=r"CUDA|NVIDIA") as caught:
        load_base(tiny_base("llama"), device_map="cuda")
    assert "check the name, the device" in str(caught.value)


def offloaded(*modules):
    """A `device_map` that keeps some modules of a tiny Llama on disk."""
    layers = [f"model.layers.{n}" for n in range(2)]
    names = ["model.embed_tokens", *layers, "model.norm", "model.rotary_emb", "lm_head"]
    return {name: "disk" if name in modules else "cpu" for name in names}


def test_layers_on_disk_give_the_same_answers(tiny_base):
    texts = ["Review: It broke after two days.", "The sound"]
    place = tiny_base("llama")
    base = load_base(place, device_map=offloaded("model.layers.0", "lm_head"))
    assert "disk" in base.model.hf_device_map.values()
    expected = PromptModel(load_base(place)).generate(texts, prompt=None, max_new_tokens=8)
    assert PromptModel(base).generate(texts, prompt=None, max_new_tokens=8) == expected


def test_offloaded_embeddings_are_refused(tiny_base):
    place = tiny_base("llama")
    with pytest.raises(BaseModelError, match=r"embeddings of the base model .* are offloaded"):
        load_base(place, device_map=offloaded("model.embed_tokens"))


def damaged(tiny_base, tmp_path, file, data):
    place = tmp_path / "damaged"
    shutil.copytree(tiny_base("llama"), place)
    (place / file).unlink()
    if data is not None:
        (place / file).write_bytes(data)
    return place


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("config.json", None),
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "never-heard-of"}'),
        ("model.safetensors", None),
        ("model.safetensors", b""),
        ("model.safetensors", b"\x00" * 100),
        ("tokenizer.json", b"{"),
    ],
    ids=range(7),
)
def test_a_damaged_folder_is_one_line(file, data, tiny_base, tmp_path):
    with pytest.raises(BaseModelError, match=r"Cannot load the base model '.*damaged'") as caught:
        load_base(damaged(tiny_base, tmp_path, file, data))
    assert "\n" not in str(caught.value)


def test_weights_of_another_size_are_one_line(tiny_base, tmp_path):
    config = json.loads((tiny_base("llama") / "config.json").read_text())
    data = json.dumps({**config, "hidden_size": 16}).encode()
    with pytest.raises(BaseModelError, match=r"Cannot load the base model '.*damaged'"):
        load_base(damaged(tiny_base, tmp_path, "config.json", data))


def test_an_encoder_is_refused(tmp_path):
    """transformers would load BERT as a decoder that sees what it should predict."""
    config = BertConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertForMaskedLM(config).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match=r"is an encoder \(bert\).*decoder-only"):
        load_base(tmp_path)


def test_a_stranger_s_code_is_never_run_nor_asked_about(tiny_base, tmp_path, monkeypatch):
    place = tmp_path / "code"
    shutil.copytree(tiny_base("llama"), place)
    config = json.loads((place / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    (place / "config.json").write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (place / "mine.py").write_text(
        "from pathlib import Path\nfrom transformers import LlamaConfig as Mine\n"
        f"Path({str(ran)!r}).touch()\n"
    )
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(BaseModelError, match="custom code"):
        load_base(place)
    assert not ran.exists()


def test_options_that_do_not_exist_are_named(tiny_base):
    with pytest.raises(
        BaseModelError, match=r"Unknown dtype 'int3': expected one of auto, float32"
    ):
        load_base(tiny_base("llama"), dtype="int3")
    with pytest.raises(BaseModelError, match=r"^Unknown quantization '3bit': expected '4bit'"):
        load_base(tiny_base("llama"), quantization="3bit")


def test_bitsandbytes_is_asked_for_by_name(tiny_base):
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        for quantization in ("4bit", BitsAndBytesConfig(load_in_8bit=True)):
            with pytest.raises(MissingDependency, match="bitsandbytes"):
                load_base(tiny_base("llama"), quantization=quantization)
    else:
        pytest.skip("bitsandbytes is installed")


# --- GGUF ---


def write_gguf(path, base, *, organization="Example Org.", kind=gguf.GGMLQuantizationType.F32):
    """Write a tiny Llama as a GGUF file, its matrices in the format `kind`."""
    config, tokenizer = base.model.config, base.tokenizer
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_organization(organization)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    add_tokenizer(writer, tokenizer, config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in base.model.state_dict().items():
        values = weight.float().numpy()
        for part, heads in (("q_proj", 4), ("k_proj", 2)):
            if part in name:
                values = interleaved(values, heads)
        short = names.get_name(name, try_suffixes=(".weight",))
        if values.ndim == 2:
            packed = gguf.quants.quantize(np.ascontiguousarray(values), kind)
            writer.add_tensor(short, packed, raw_dtype=kind)
        else:
            writer.add_tensor(short, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer, tokenizer, size):
    tokens = [tokenizer.convert_ids_to_tokens(i) or f"[PAD{i}]" for i in range(size)]
    special = set(tokenizer.all_special_tokens)
    kinds = [gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens]
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)


def interleaved(weight, heads):
    """llama.cpp pairs the rotary halves of each head row by row."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def test_a_gguf_file_is_converted_once_and_is_the_same_model(loaded, tmp_path, softhub_home):
    original = loaded("llama")
    file = write_gguf(tmp_path / "Tiny-Llama.F32.gguf", original)
    base = load_base(file)
    assert base.name == "Example-Org/Tiny-Llama"
    assert base.quantization == "gguf-f32"
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    ids = torch.tensor([[11, 42, 77, 130]])
    with torch.no_grad():
        expected, found = original.model(ids).logits, base.model(ids).logits
    assert_equal_in_float32(found, expected)
    (folder,) = (softhub_home / "bases").iterdir()
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    again = load_base(file, name="org/other")
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert again.name == "org/other"
    assert again.fingerprint == base.fingerprint


def test_a_gguf_file_keeps_the_name_with_which_it_was_converted(loaded, tmp_path):
    file = write_gguf(tmp_path / "Tiny-Llama.F32.gguf", loaded("llama"))
    load_tokenizer(file, name="org/mine")
    assert load_base(file).name == "org/mine"


def test_a_quantised_gguf_file_says_so(loaded, tmp_path):
    kind = gguf.GGMLQuantizationType.Q4_1
    base = load_base(
        write_gguf(tmp_path / "tiny-q4_1.gguf", loaded("llama"), kind=kind), name="a/b"
    )
    assert base.quantization == base.fingerprint["quantization"] == "gguf-q4_1"
    assert base.dtype == torch.float32
    text = "Great value, easy to use, 日本語."
    ids = AutoTokenizer.from_pretrained(base.model.name_or_path)(text)["input_ids"]
    assert base.tokenizer.decode(ids) == text
    assert ids == loaded("llama").tokenizer(text)["input_ids"]


@pytest.mark.parametrize("data", [b"", b"GGUF", b"no model at all" * 9, b"GGUF\x03" + b"\xff" * 90])
def test_a_damaged_gguf_file_is_one_line_and_leaves_nothing(data, tmp_path, softhub_home):
    file = tmp_path / "bad.gguf"
    file.write_bytes(data)
    with pytest.raises(BaseModelError, match=r"Cannot load the base model '.*bad\.gguf'") as caught:
        load_base(file)
    assert "\n" not in str(caught.value)
    assert list((softhub_home / "bases").iterdir()) == []


def test_a_cut_gguf_file_is_refused(loaded, tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf", loaded("llama"))
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(BaseModelError, match=r"tiny\.gguf"):
        load_base(file)


def test_a_missing_gguf_file_is_one_sentence(tmp_path):
    with pytest.raises(BaseModelError, match=r"No GGUF file at '.*no\.gguf'"):
        load_base(tmp_path / "no.gguf")


@pytest.mark.parametrize("grad", [True, False])
def test_a_model_that_remembers_its_last_run_can_be_loaded(grad):
    """RecurrentGemma keeps states in its layers, which belong to a graph after a pass with one."""
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    sizes = {"num_hidden_layers": 3, "num_attention_heads": 4, "lru_width": 32, "head_dim": 8}
    config = RecurrentGemmaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_key_value_heads=1, **sizes
    )
    model, ids = RecurrentGemmaForCausalLM(config), torch.tensor([[20, 30, 40]])
    with torch.set_grad_enabled(grad):
        expected = model.eval()(ids, use_cache=False).logits
    base = load_base(model, tokenizer=build_tokenizer())
    assert torch.equal(base.model(ids, use_cache=False).logits, expected)
