"""Tiny models of families whose batches, embeddings or caches differ from those of Llama."""

import torch
import transformers as hf

from softhub.model.loading import load_base
from tests.tiny import HIDDEN_SIZE, VOCAB_SIZE, build_tokenizer, llama_like

WINDOW = 16
"""Length of windows, and at which rotary factors switch."""


def _gpt_neo():
    return hf.GPTNeoForCausalLM(
        hf.GPTNeoConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=HIDDEN_SIZE,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            window_size=WINDOW,
            intermediate_size=64,
            max_position_embeddings=128,
            initializer_range=0.2,
        )
    )


def _mpt():
    return hf.MptForCausalLM(
        hf.MptConfig(
            vocab_size=VOCAB_SIZE,
            d_model=HIDDEN_SIZE,
            n_layers=2,
            n_heads=4,
            max_seq_len=128,
            initializer_range=0.2,
        )
    )


def bart_like(model, config, **extra):
    return model(
        config(
            vocab_size=VOCAB_SIZE,
            d_model=HIDDEN_SIZE,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            init_std=0.2,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
            forced_eos_token_id=None,
            **extra,
        )
    )


def _pegasus():
    sizes = {"scale_embedding": True, "max_position_embeddings": 128}
    return bart_like(hf.PegasusForConditionalGeneration, hf.PegasusConfig, **sizes)


def _marian():
    sizes = {"scale_embedding": True, "max_position_embeddings": 128}
    return bart_like(hf.MarianMTModel, hf.MarianConfig, **sizes)


def _led():
    sizes = {"max_encoder_position_embeddings": 128, "max_decoder_position_embeddings": 64}
    model, config = hf.LEDForConditionalGeneration, hf.LEDConfig
    return bart_like(model, config, attention_window=[WINDOW] * 2, **sizes)


def _switch():
    return hf.SwitchTransformersForConditionalGeneration(
        hf.SwitchTransformersConfig(
            vocab_size=VOCAB_SIZE,
            d_model=HIDDEN_SIZE,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_decoder_layers=2,
            num_heads=4,
            num_experts=4,
            num_sparse_encoder_layers=1,
            num_sparse_decoder_layers=1,
            initializer_factor=3.0,
        )
    )


def _phi3():
    scaling = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3, 4, 5, 6.0]}
    sizes = llama_like(max_position_embeddings=128, original_max_position_embeddings=WINDOW)
    return hf.Phi3ForCausalLM(hf.Phi3Config(**sizes, rope_scaling=scaling, pad_token_id=0))


def _gemma3n():
    sizes = llama_like(
        num_hidden_layers=2,
        num_kv_shared_layers=0,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=WINDOW,
        vocab_size_per_layer_input=VOCAB_SIZE,
        hidden_size_per_layer_input=8,
        laurel_rank=4,
        altup_num_inputs=2,
        activation_sparsity_pattern=[0.0] * 2,
        intermediate_size=[64] * 2,
    )
    model = hf.Gemma3nForCausalLM(hf.Gemma3nTextConfig(**sizes))
    for name, weight in model.named_parameters():
        if name.endswith("correct_output_scale"):  # starts at 0, which hides embeddings of layers
            torch.nn.init.normal_(weight)
    return model


def _mamba():
    sizes = {"num_hidden_layers": 2, "state_size": 4, "initializer_range": 0.2}
    config = hf.MambaConfig(vocab_size=VOCAB_SIZE, hidden_size=HIDDEN_SIZE, **sizes)
    return hf.MambaForCausalLM(config)


def _jamba():
    sizes = llama_like(num_experts=4, mamba_d_state=4, mamba_dt_rank=4, use_mamba_kernels=False)
    pattern = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2}
    return hf.JambaForCausalLM(hf.JambaConfig(**sizes, **pattern))


def _bamba():
    mamba = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1}
    sizes = llama_like(attn_layer_indices=[1], mamba_chunk_size=WINDOW, **mamba)
    return hf.BambaForCausalLM(hf.BambaConfig(**sizes))


def _rwkv():
    sizes = {"num_hidden_layers": 2, "attention_hidden_size": 32, "intermediate_size": 64}
    config = hf.RwkvConfig(vocab_size=VOCAB_SIZE, hidden_size=HIDDEN_SIZE, **sizes)
    return hf.RwkvForCausalLM(config)


def _xlnet():
    sizes = {"d_model": HIDDEN_SIZE, "n_layer": 2, "n_head": 4, "d_inner": 64}
    return hf.XLNetLMHeadModel(
        hf.XLNetConfig(vocab_size=VOCAB_SIZE, initializer_range=0.2, **sizes)
    )


def _ctrl():
    sizes = {"n_positions": 128, "n_embd": HIDDEN_SIZE, "dff": 64, "n_layer": 2, "n_head": 4}
    config = hf.CTRLConfig(vocab_size=VOCAB_SIZE, initializer_range=0.2, **sizes)
    return hf.CTRLLMHeadModel(config)


def _prophetnet():
    return hf.ProphetNetForConditionalGeneration(
        hf.ProphetNetConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=HIDDEN_SIZE,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            num_encoder_layers=2,
            num_decoder_layers=2,
            num_encoder_attention_heads=4,
            num_decoder_attention_heads=4,
            max_position_embeddings=128,
            init_std=0.2,
            pad_token_id=0,
        )
    )


def _bert_like(model, config, **extra):
    sizes = llama_like(max_position_embeddings=130, initializer_range=0.2, **extra)
    return model(config(**{name: sizes[name] for name in sizes if "rms" not in name}))


def _camembert():
    return _bert_like(hf.CamembertForCausalLM, hf.CamembertConfig, is_decoder=True)


def _bert_generation():
    return _bert_like(hf.BertGenerationDecoder, hf.BertGenerationConfig)


def _axk2():
    ranks = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    index = {"index_topk": WINDOW, "index_head_dim": 16, "index_n_heads": 2}
    sizes = llama_like(num_key_value_heads=4, v_head_dim=8, **ranks, **experts, **index)
    return hf.AXK2ForCausalLM(hf.AXK2Config(**sizes))


BUILDERS = {
    "axk2": _axk2,
    "bert_generation": _bert_generation,
    "camembert": _camembert,
    "ctrl": _ctrl,
    "prophetnet": _prophetnet,
    "gpt_neo": _gpt_neo,
    "mpt": _mpt,
    "pegasus": _pegasus,
    "marian": _marian,
    "led": _led,
    "switch": _switch,
    "phi3": _phi3,
    "gemma3n": _gemma3n,
    "mamba": _mamba,
    "jamba": _jamba,
    "bamba": _bamba,
    "rwkv": _rwkv,
    "xlnet": _xlnet,
}


def family_base(kind):
    """Build a tiny base of a family, with seeded random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BUILDERS[kind]().float().eval()
    for config in (model.config, model.generation_config):
        config.pad_token_id, config.eos_token_id, config.bos_token_id = 0, 1, 2
        if model.config.is_encoder_decoder:
            config.decoder_start_token_id = 0
    tokenizer = build_tokenizer(append_eos=model.config.is_encoder_decoder)
    return load_base(model, tokenizer=tokenizer, name=kind)
