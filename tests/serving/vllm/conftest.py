"""A base as vLLM's process knows it, and prompts for it; none of this needs vLLM."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from softhub.hub import Hub
from softhub.model.base import BaseModel
from softhub.model.fingerprint import tokenizer_hash
from softhub.serving.vllm.prompts import Prompts
from softhub.serving.vllm.served import ServedBase
from softhub.serving.vllm.sources import Sources, parse_sources
from tests.prompts import soft_prompt

BASE = "example/tiny-llama"


def served(base: BaseModel, **changes) -> ServedBase:
    """A tiny base without its weights."""
    config = base.model.config
    identity = {
        "model_type": config.model_type,
        "hidden_size": base.hidden_size,
        "num_layers": config.num_hidden_layers,
        "vocab_size": config.vocab_size,
        "tokenizer": tokenizer_hash(base.tokenizer),
        "embeddings": None,
        "matrices": None,
        "norms": None,
        "sketch": None,
        "dtype": "float32",
        "quantization": None,
    }
    fields = {
        "names": (BASE,),
        "hidden_size": base.hidden_size,
        "max_length": 512,
        "dtype": torch.float32,
        "identity": {**identity, **changes},
        "tokenizer": base.tokenizer,
    }
    return ServedBase(**fields)


@pytest.fixture
def base(loaded: Callable[[str], BaseModel]) -> BaseModel:
    """The tiny Llama."""
    return loaded("llama")


@pytest.fixture
def prompts_of(base: BaseModel) -> Callable[..., Prompts]:
    """Return `prompts_of("…")`: prompts from the value of SOFTHUB_PROMPTS, loaded."""

    def make(text: str = "", hub: Hub | None = None, **options: int) -> Prompts:
        sources = parse_sources(text) if text else Sources({})
        prompts = Prompts(served(base), sources, hub or Hub(), **options)
        prompts.load_all()
        return prompts

    return make


@pytest.fixture
def adapter(base: BaseModel, tmp_path: Path) -> Callable[..., Path]:
    """Return `adapter(name, tokens=…, task=…, seed=…)`: the folder of a random prompt."""

    def make(name: str, task=None, *, tokens: int = 5, seed: int = 0, **changes) -> Path:
        prompt = soft_prompt(base, tokens, task, seed=seed, **changes)
        return prompt.save_pretrained(tmp_path / "adapters" / name)

    return make
