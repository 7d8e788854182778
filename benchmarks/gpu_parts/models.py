"""Base models with random weights: tiny ones of ten families, and Llamas of real shapes."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from softhub import SoftPrompt, load_base
from softhub.training.provenance import manifest_of

WORDS = 400
FAMILIES = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma2",
    "gpt2",
    "opt",
    "gpt_neox",
    "bloom",
    "t5",
)
SIZES = {  # names that families give to their sizes
    2: "num_hidden_layers num_layers num_decoder_layers num_key_value_heads",
    4: "num_attention_heads num_heads",
    8: "head_dim d_kv query_pre_attn_scalar sliding_window",
    32: "hidden_size d_model word_embed_proj_dim",
    64: "intermediate_size ffn_dim d_ff",
    512: "max_position_embeddings",
    WORDS: "vocab_size",
    0: "pad_token_id",
    1: "eos_token_id bos_token_id",
    3.0: "initializer_factor",
    0.2: "initializer_range init_std",
}
LLAMAS = {
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": WORDS,
    },
    "1B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "8B": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
}


def tokenizer():
    """Return a tokenizer of the words w2 ... w399; 0 is the pad and 1 ends a text."""
    words = {"<pad>": 0, "</s>": 1, **{f"w{n}": n for n in range(2, WORDS)}}
    table = Tokenizer(models.WordLevel(words, unk_token="w399"))
    table.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=table, pad_token="<pad>", eos_token="</s>", model_max_length=512
    )


def tiny_base(family, device, dtype=torch.float32, attention="sdpa"):
    """Return a tiny base of a family; its weights are the same on every device.

    Raises:
        ValueError, ImportError: The family does not support this attention.
    """
    wanted = {name: size for size, names in SIZES.items() for name in names.split()}
    kind = CONFIG_MAPPING[family]
    default = kind()
    config = kind(**{name: size for name, size in wanted.items() if hasattr(default, name)})
    auto = AutoModelForCausalLM
    if config.is_encoder_decoder:
        auto, config.decoder_start_token_id = AutoModelForSeq2SeqLM, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = auto.from_config(config, attn_implementation=attention)
    return load_base(model.to(device, dtype).eval(), tokenizer=tokenizer(), name=f"tiny/{family}")


def llama_base(shape, device, dtype):
    """Return a Llama of a real shape, whose weights are made on the device itself."""
    config = LlamaConfig(**LLAMAS[shape], max_position_embeddings=4096, eos_token_id=1)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return load_base(model.eval(), tokenizer=tokenizer(), name=f"random/llama-{shape.lower()}")


def random_vectors(base, count, seed=0):
    """Return a prompt `[P, H]`, float32: embeddings of drawn tokens, half as large again."""
    drawn = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, WORDS, (count,), generator=drawn)
    return 1.5 * base.embed(ids).detach().float()


def soft_prompt(base, vectors):
    """Return vectors `[P, H]` as a prompt that a `PromptModel` can load."""
    return SoftPrompt(vectors, manifest_of(base, vectors, task=None, provenance={}))


def token_rows(lengths, seed=0):
    """Return a list of token ids for each length."""
    drawn = torch.Generator().manual_seed(seed)
    return [torch.randint(2, WORDS, (length,), generator=drawn).tolist() for length in lengths]
