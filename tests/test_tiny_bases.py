"""The tiny bases that the other tests stand on are what they say they are."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from tests.tiny import BUILDERS, HIDDEN_SIZE, IM_END, IM_START, build_base


@pytest.mark.parametrize("kind", BUILDERS)
def test_saved_base_loads_and_tells_tokens_apart(
    tiny_base: Callable[[str], Path], kind: str
) -> None:
    folder = tiny_base(kind)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loader = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    model = loader.from_pretrained(folder).eval()
    assert model.get_input_embeddings().embedding_dim == HIDDEN_SIZE
    assert model.dtype == torch.float32
    assert model.get_input_embeddings().num_embeddings >= len(tokenizer)

    a, b = (tokenizer(text, return_tensors="pt") for text in ("good phone", "bad phone, really"))
    extra = {"decoder_input_ids": torch.zeros(1, 1, dtype=torch.long)} if kind == "t5" else {}
    with torch.no_grad():
        difference = model(**a, **extra).logits[0, -1] - model(**b, **extra).logits[0, -1]
    assert difference.abs().max() > 0.05, "the input hardly shows in the logits"


@pytest.mark.parametrize("kind", BUILDERS)
def test_tokenizer_round_trips_and_keeps_control_tokens_whole(
    tiny_base: Callable[[str], Path], kind: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base(kind))
    text = "Naïve café, 日本語: it broke twice!"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(chat, add_special_tokens=False).input_ids
    assert ids.count(tokenizer.convert_tokens_to_ids(IM_START)) == 2
    assert ids.count(tokenizer.convert_tokens_to_ids(IM_END)) == 1
    assert (tokenizer("hello").input_ids[-1] == tokenizer.eos_token_id) == (kind == "t5")


def test_same_seed_writes_the_same_weights(
    tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    again = build_base("llama", tmp_path / "again")
    other = build_base("llama", tmp_path / "other", seed=1)
    weights = "model.safetensors"
    assert (tiny_base("llama") / weights).read_bytes() == (again / weights).read_bytes()
    assert (other / weights).read_bytes() != (again / weights).read_bytes()
