"""Small models with random weights, of every family of transformers that can be built small."""

import re

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

LARGEST = 30_000_000  # parameters
VOCABULARY = 400
WINDOW = 12

# Sizes by what families call them; the first pattern that matches a name counts.
SIZES = [
    (r"max_window_layers|num_nextn|num_mtp|first_k_dense|n_group|topk_group|bos_token_id", 1),
    (r"(pad|decoder_start)_token_id", 0),
    (r"eos_token_id", 2),
    (r"num_kv_shared_layers", 0),
    (r"hidden_layers|_layers$|n_layer$", 4),
    (r"index_topk$|sliding_window$|window_size$|attention_window$|original_max_position", WINDOW),
    (r"(key_value|kv|query)_(heads|groups)|experts_per_tok|num_key_value|top_?k$", 2),
    (r"(attention|num|n|mamba_n|linear_num_\w+|lightning)_heads?$|experts$|attention_heads", 4),
    (r"vocab_size(_per_layer_input)?$", VOCABULARY),
    (r"max_(position|seq)|n_positions|encoder_position|decoder_position", 256),
    (
        r"(?<!qk_)head_(dim|size)|rotary_dim|rope_head_dim|nope_head_dim|d_kv|d_head|kv_channels",
        8,
    ),
    (r"(q|kv|o)_lora_rank|dt_rank|lora_rank", 16),
    (r"state_size|d_state|conv_kernel|laurel_rank", 4),
    (r"(^|_)chunk_size$", 16),
    (r"hidden_size_per_layer_input", 8),
    (r"(^|_)hidden_size$|d_model|n_embd|embedding_size|word_embed_proj_dim|attention_hidden", 32),
    (r"intermediate_size|ffn_dim|d_ff$|d_inner$|n_inner|dim_ff", 64),
]

# What small sizes leave out: layers of each kind, and experts.
MORE = {
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2, "mamba_d_head": 16},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
}
SIZE_NAMES = {4: "layers and heads", 2: "key heads", 8: "head size"}
CHANGES = (
    {},
    {"key heads": 4},
    {"layers and heads": 8},
    {"layers and heads": 8, "key heads": 8},
    {"head size": None},
)


class NotSmallError(Exception):
    """The reason why a family has no small model here."""


def families():
    """Return each family with the name of its class, decoders first."""
    decoders = {name: (name, kind) for name, kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()}
    both = {
        f"{name} ": (name, kind)
        for name, kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.items()
    }
    found = {}
    for name, kind in [*decoders.values(), *both.values()]:
        kind = kind if isinstance(kind, str) else kind[0]
        found[kind] = name
    return {kind: name for kind, name in found.items()}


def small_model(kind, family):
    """Build a small model of a class, float32 and frozen, with weights drawn wide.

    Weights that start as zeros or ones are drawn too: they would hide what they multiply.
    """
    model_class = getattr(transformers, kind)
    config_class = CONFIG_MAPPING[family]
    if model_class.config_class is not None and isinstance(model_class.config_class, type):
        config_class = model_class.config_class
    error = None
    for change in CHANGES:
        try:
            torch.manual_seed(0)
            model = model_class(small_config(config_class, kind, change)).float().eval()
            run(model)
            break
        except Exception as found:  # families raise different errors for sizes
            error = found
    else:
        raise NotSmallError(f"{type(error).__name__}: {error}"[:200])
    model.requires_grad_(False)
    if not model.can_generate():
        raise NotSmallError("cannot generate")
    draw_weights(model)
    return model


def small_config(config_class, kind, change):
    """Return a config with small sizes, and a change of them that some families need."""
    default = config_class()
    if default.get_text_config() is not default and not default.is_encoder_decoder:
        raise NotSmallError("reads more than text; its text model is a family of its own")
    fields, sizes = default.to_dict(), {}
    for name, value in fields.items():
        size = next((size for pattern, size in SIZES if re.search(pattern, name)), None)
        if size is None or isinstance(value, bool) or not isinstance(value, int | type(None)):
            continue
        if value is None and not name.endswith(("token_id", "experts_per_tok")):
            continue
        size = change.get(SIZE_NAMES.get(size), size)
        if size is not None:
            sizes[name] = size
    for name in ("initializer_range", "init_std", "initializer_factor"):
        if name in fields:
            sizes[name] = 2.0 if name == "initializer_factor" else 0.15
    if "attention_types" in fields:
        sizes["attention_types"] = [[["global", "local"], 2]]
    if isinstance(fields.get("attention_window"), list | int):
        sizes["attention_window"] = [WINDOW] * 4
    if "attn_layer_indices" in fields:
        sizes["attn_layer_indices"] = [1, 3]
    if kind.endswith(("ForCausalLM", "LMHeadModel")) and "is_decoder" in fields:
        sizes["is_decoder"] = True
    sizes |= MORE.get(default.model_type, {})
    config = config_class(**sizes)
    with torch.device("meta"):
        parameters = getattr(transformers, kind)(config).num_parameters()
    if parameters > LARGEST:
        raise NotSmallError(f"{parameters:,} parameters")
    return config


def run(model):
    """Run a model on a few ids, which raises an error if its sizes do not fit together."""
    ids = {"input_ids": torch.tensor([[100, 110, 120, 130]])}
    if model.config.is_encoder_decoder:
        ids["decoder_input_ids"] = torch.tensor([[0, 99]])
    model(**ids)


@torch.no_grad()
def draw_weights(model):
    drawn = torch.Generator().manual_seed(1)
    for _, weight in sorted(model.named_parameters()):
        if weight.is_floating_point() and weight.numel() > 1 and weight.std() == 0:
            weight.add_(0.2 * torch.randn(weight.shape, generator=drawn))


def build_tokenizer():
    """Return a tokenizer whose words are `w0` to `w399`, token by token."""
    vocabulary = {f"w{index}": index for index in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="w0", bos_token="w1", eos_token="w2", unk_token="w3"
    )
