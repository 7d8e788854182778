"""Which model families support packed rows, and are they exact? All decoders of transformers.

    python benchmarks/packing_families.py          # takes a minute or two
    python benchmarks/packing_families.py --only llama mistral

Every decoder of the installed transformers that can be built with small sizes is built, with random
weights. If `longest_packed` allows packing, a batch of texts of 1 to 37 tokens after a prompt of
five is run packed and with the prompt before every row. Compared are label scores (of words of
several tokens), log-probabilities of targets, and the prompt's gradient; each deviation is the
largest one, relative to the largest value.
"""

import sys

import torch
import transformers
from record import command_line, write
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from softhub.model.assembly import pad_rows
from softhub.model.base import BaseModel
from softhub.model.encoding import Candidates
from softhub.model.kv_cache import shares_prefixes
from softhub.model.packing import SharedPrompt, longest_packed
from softhub.model.scoring import encode_rows, label_scores, target_logprobs

LARGEST = 30_000_000  # parameters
SIZES = {  # names that families give to their sizes
    2: "num_hidden_layers n_layer n_layers decoder_layers num_key_value_heads num_experts_per_tok",
    4: "num_attention_heads n_head n_heads decoder_attention_heads num_experts num_local_experts "
    "n_routed_experts",
    8: "head_dim rotary_dim qk_rope_head_dim qk_nope_head_dim v_head_dim",
    16: "q_lora_rank kv_lora_rank",
    32: "hidden_size n_embd d_model moe_intermediate_size word_embed_proj_dim",
    64: "intermediate_size ffn_dim",
    400: "vocab_size",
    512: "max_position_embeddings n_positions",
    1: "n_group topk_group first_k_dense_replace bos_token_id",
    0: "pad_token_id",
    0.2: "initializer_range",
}
CANDIDATES = Candidates(("a", "b"), ((70,), (71, 72, 73)), (0, 1))
TARGETS = ((80, 81), (82,), (83, 84, 85, 86), (87, 88, 89))


def small(family):
    """Return a small base model of a family, or None if it cannot be built."""
    try:
        wanted = {name: size for size, names in SIZES.items() for name in names.split()}
        kind = CONFIG_MAPPING[family]
        default = kind()
        config = kind(**{name: size for name, size in wanted.items() if hasattr(default, name)})
        if config.is_encoder_decoder or config.get_text_config() is not config:
            return None
        with torch.device("meta"):
            parameters = AutoModelForCausalLM.from_config(config).num_parameters()
        if parameters > LARGEST:
            return None
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float().eval().requires_grad_(False)
    except Exception:  # families raise different errors for sizes
        return None
    return BaseModel(model=model, tokenizer=None, name=family)


def answers(base, form):
    """Return label scores, log-probabilities of targets and the prompt's gradient."""
    drawn = torch.Generator().manual_seed(0)
    texts = [torch.randint(3, 400, (n,), generator=drawn).tolist() for n in (37, 5, 20, 1)]
    vectors = (1.5 * base.embed(torch.arange(10, 15))).requires_grad_()
    prompts, rows = [form(vectors)] * len(texts), pad_rows(texts)
    encoded = encode_rows(base, prompts, rows, keep_cache=True)
    scores = label_scores(base, encoded, CANDIDATES)
    targets = target_logprobs(base, prompts, rows, pad_rows(TARGETS, side="right"))
    (scores.sum() + targets.sum()).backward()
    return scores.detach(), targets.detach(), vectors.grad


def verdict(base):
    longest = longest_packed(base)
    if not longest:
        return {"packs": False}
    pairs = zip(answers(base, SharedPrompt), answers(base, lambda vectors: vectors), strict=True)
    deviations = [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]
    return {
        "packs": True,
        "longest": longest if longest < sys.maxsize else None,
        "shared_a_prompt_before": shares_prefixes(base),
        "largest_deviation": max(deviations),
    }


def main():
    parser = command_line(__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, metavar="FAMILY"
    )
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    families, unbuilt = {}, []
    for family in options.only or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        base = small(family)
        if base is None:
            unbuilt.append(family)
        else:
            families[family] = verdict(base)
    packing = {name: found for name, found in families.items() if found["packs"]}
    figures = {
        "packing": len(packing),
        "of_them_only_within_a_window": sum(f["longest"] is not None for f in packing.values()),
        "largest_deviation": max(f["largest_deviation"] for f in packing.values()),
        "not_packing": [name for name, found in families.items() if not found["packs"]],
        "not_built": unbuilt,
        "families": packing,
    }
    write("packing_families", figures)


if __name__ == "__main__":
    main()
