"""Exports: what plain PEFT and numpy read equals the prompt."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from softhub.adapter.layout import CONFIG
from softhub.adapter.portable import UNKNOWN_BASE
from softhub.errors import ConfigError, IncompatiblePrompt, InvalidAdapter, SoftHubWarning
from softhub.inference.engine import PromptModel
from softhub.model.export import export_cartridge, export_npy
from softhub.model.loading import load_base
from tests.prompts import MOOD, TEXTS, prefix, soft_prompt
from tests.references import assert_equal_in_float32

DECODERS = ("llama", "qwen2", "qwen3", "gpt2", "opt")


@pytest.mark.parametrize("kind", DECODERS)
def test_plain_peft_answers_from_a_cartridge_what_the_prompt_answers(kind, tiny_base, tmp_path):
    base = load_base(tiny_base(kind), name=f"example/{kind}")
    prompt = soft_prompt(base, 7)
    folder = export_cartridge(prompt, base, tmp_path / "cartridge")
    stock = AutoModelForCausalLM.from_pretrained(tiny_base(kind)).eval()
    peft = PeftModel.from_pretrained(stock, folder)
    ids = torch.tensor([[9, 30, 41, 77, 5]])
    # [1, P + T, H]: the reference is the base itself on the joined embeddings.
    embeddings = torch.cat([prompt.vectors[None], base.embed(ids)], dim=1)
    with torch.no_grad():
        found = peft(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        expected = base.model(inputs_embeds=embeddings).logits[:, 7:]
    assert_equal_in_float32(found, expected)


FORMATS = {
    "a prompt as a cartridge": (soft_prompt, export_cartridge),
    "a prefix as a cartridge": (prefix, export_cartridge),
    "a prefix": (prefix, lambda prompt, base, folder: prompt.save_pretrained(folder)),
}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("name", FORMATS)
def test_plain_peft_generates_in_left_padded_batches_as_row_by_row(kind, name, tiny_base, tmp_path):
    base = load_base(tiny_base(kind), name=f"example/{kind}")
    make, write = FORMATS[name]
    prompt = make(base, 5, seed=3)
    model = PromptModel(base)
    model.load_prompt(prompt, name="prompt")
    expected = [
        model.generate([text], prompt="prompt", max_new_tokens=8, do_sample=False)[0]
        for text in TEXTS
    ]
    stock = AutoModelForCausalLM.from_pretrained(tiny_base(kind)).eval()
    peft = PeftModel.from_pretrained(stock, write(prompt, base, tmp_path / "out"))
    batch = base.tokenizer(TEXTS, padding=True, padding_side="left", return_tensors="pt")
    width = batch["input_ids"].shape[1]
    keys = ("input_ids", "attention_mask")
    made = peft.generate(
        **{key: batch[key] for key in keys}, max_new_tokens=8, do_sample=False, pad_token_id=0
    )
    found = base.tokenizer.batch_decode(made[:, width:], skip_special_tokens=True)
    assert found == expected


def test_a_cartridge_says_what_it_is_and_softhub_reads_it_as_a_prefix(loaded, tmp_path):
    base = loaded("llama")
    prompt = soft_prompt(base, 4)
    folder = export_cartridge(prompt, base, tmp_path / "cartridge")
    record = json.loads((folder / CONFIG).read_text())
    assert record["peft_type"] == "CARTRIDGE"
    assert record["base_model_name_or_path"] == "example/tiny-llama"
    assert "example/tiny-llama" in (folder / "README.md").read_text()
    model = PromptModel(base)
    model.load_prompt(prompt, name="prompt", task=MOOD)
    with pytest.warns(SoftHubWarning, match="example/tiny-llama"):  # it has no fingerprint
        model.load_prompt(folder, name="cartridge", task=MOOD)
    expected = model.predict(TEXTS, prompt="prompt")
    for found, other in zip(model.predict(TEXTS, prompt="cartridge"), expected, strict=True):
        assert found.scores == pytest.approx(other.scores, abs=1e-4)


def test_a_prompt_without_the_name_of_its_base_is_exported_without_one(loaded, tmp_path):
    base = loaded("llama")
    prompt = soft_prompt(base, 4, base_model=UNKNOWN_BASE)
    folder = export_cartridge(prompt, base, tmp_path / "cartridge")
    assert json.loads((folder / CONFIG).read_text())["base_model_name_or_path"] is None
    assert "base_model:" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("kind", ["mistral", "gemma2", "t5"])
def test_bases_whose_keys_depend_on_more_than_the_prompt_are_refused(kind, loaded, tmp_path):
    base = loaded(kind)
    with pytest.raises(IncompatiblePrompt, match=r"cannot run a prefix: it (has|is) "):
        export_cartridge(soft_prompt(base, 4), base, tmp_path / "cartridge")
    assert not (tmp_path / "cartridge").exists()


def test_a_prompt_of_another_base_is_refused(loaded, tmp_path):
    prompt = soft_prompt(loaded("qwen2"), 4)
    with pytest.raises(IncompatiblePrompt, match="made for"):
        export_cartridge(prompt, loaded("llama"), tmp_path / "cartridge")


def test_a_folder_with_other_files_is_not_replaced(loaded, tmp_path):
    base = loaded("llama")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidAdapter):
        export_cartridge(soft_prompt(base, 4), base, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_adapter_is_not_replaced_unless_it_is_a_cartridge(loaded, tmp_path):
    base = loaded("llama")
    prompt = soft_prompt(base, 4)
    source = prompt.save_pretrained(tmp_path / "prompt")
    plain = prompt.save_pretrained(tmp_path / "plain")
    (plain / "softhub.json").unlink()
    for folder in (source, plain):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(InvalidAdapter, match="not a cartridge"):
            export_cartridge(prompt, base, folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    for _ in range(2):
        export_cartridge(prompt, base, tmp_path / "cartridge")


def test_vectors_are_written_only_to_an_npy_file_outside_of_a_hub(loaded, tmp_path: Path):
    prompt, thesis = soft_prompt(loaded("llama"), 4), tmp_path / "thesis.md"
    thesis.write_text("mine")
    with pytest.raises(ConfigError, match=r"must end in \.npy"):
        export_npy(prompt, thesis)
    assert thesis.read_text() == "mine"
    snapshot = tmp_path / "models--me--mood" / "snapshots" / ("1" * 40)
    with pytest.raises(InvalidAdapter, match="hub's own copy"):
        export_npy(prompt, snapshot / "prompt.npy")
    assert not snapshot.exists()


@pytest.mark.parametrize("make", [soft_prompt, prefix])
def test_numpy_reads_the_vectors_bit_for_bit(make, loaded, tmp_path: Path):
    prompt = make(loaded("llama"), 6)
    path = export_npy(prompt, tmp_path / "new" / "prompt.npy")
    found = np.load(path, allow_pickle=False)
    assert found.dtype == np.float32
    assert torch.equal(torch.from_numpy(found), prompt.vectors)
