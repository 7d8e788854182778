"""Loaded tiny bases, shared by the tests of a session (nobody may change them), and engines."""

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

from softhub.base import load_base
from softhub.engine import PromptModel
from tests.tiny import HIDDEN_SIZE, build_tokenizer
from tests.unit.core.prompts import PROMPTS, soft_prompt


@pytest.fixture(scope="session")
def loaded(tiny_base):
    """`loaded(kind)`: the tiny base of that kind, loaded once, named `example/tiny-<kind>`."""
    bases = {}

    def base_of(kind):
        if kind not in bases:
            bases[kind] = load_base(tiny_base(kind), name=f"example/tiny-{kind}")
        return bases[kind]

    return base_of


@pytest.fixture(scope="session")
def bart(tmp_path_factory):
    """An encoder-decoder whose encoder counts positions from the first index, pads or not."""
    folder = tmp_path_factory.mktemp("bases") / "tiny-bart"
    config = BartConfig(
        vocab_size=400,
        d_model=HIDDEN_SIZE,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=512,
        init_std=0.2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        decoder_start_token_id=1,
        forced_eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BartForConditionalGeneration(config).save_pretrained(folder)
    build_tokenizer(append_eos=True).save_pretrained(folder)
    return folder


@pytest.fixture
def folder_of(tiny_base, request):
    """`folder_of(kind)`: the tiny base's folder, BART's too."""
    return lambda kind: request.getfixturevalue("bart") if kind == "bart" else tiny_base(kind)


@pytest.fixture
def model_of(folder_of, loaded):
    """`model_of(kind)`: an engine with the prompts `mood`, `topic` and `summary`."""

    def make(kind):
        base = load_base(folder_of(kind)) if kind == "bart" else loaded(kind)
        model = PromptModel(base)
        for name, (task, rows, seed) in PROMPTS.items():
            model.load_prompt(soft_prompt(base, rows, task, seed=seed), name=name)
        return model

    return make
