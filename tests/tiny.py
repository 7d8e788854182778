"""Tiny base models with seeded random weights, and a real tokenizer trained on a few sentences.

Weights are drawn wider than usual (0.2 and not 0.02), so that logits differ enough for a wrong
position, mask or pad to show.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

HIDDEN_SIZE = 32
SLIDING_WINDOW = 8
VOCAB_SIZE = 400
PAD, BOS, EOS, IM_START, IM_END = "<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"  # transformers adds it to any tokenizer of a Qwen2 model

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CORPUS = [
    "Review: This is the best phone that I have ever had. Sentiment: positive",
    "Review: It broke after two days and nobody answered my mail. Sentiment: negative",
    "Review: The sound is good, the screen is not great, the price is fair. Sentiment: neutral",
    "The battery lasts a whole day and the camera takes sharp pictures.",
    "I would not buy this again, it is a waste of money.",
    "Great value, easy to use, and my children love it.",
    "Abnormality of the nervous system, of the heart, of the eye and of the skin.",
    "The answer is yes. The answer is no. Is it true or false?",
    "system user assistant: You are a careful assistant. Answer with one word.",
    "Ünïcödé, naïve café; 日本語 and emoji 🙂 are text too.",
]


def build_tokenizer(*, append_eos: bool = False) -> "PreTrainedTokenizerFast":
    """Train a byte-level BPE on `CORPUS`; `append_eos` is what encoder-decoder models want."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, EOS, BOS, IM_START, IM_END, END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if append_eos:
        eos_id = tokenizer.token_to_id(EOS)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, eos_id)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        additional_special_tokens=[IM_START, IM_END],
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def llama_like(**extra: object) -> dict[str, object]:
    return {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        **extra,
    }


def _llama() -> "PreTrainedModel":
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**llama_like()))


def _qwen2() -> "PreTrainedModel":
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**llama_like(tie_word_embeddings=True)))


def _qwen3() -> "PreTrainedModel":
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**llama_like()))


def _mistral() -> "PreTrainedModel":
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(MistralConfig(**llama_like(sliding_window=SLIDING_WINDOW)))


def _gemma2() -> "PreTrainedModel":
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(**llama_like(sliding_window=SLIDING_WINDOW, query_pre_attn_scalar=8))
    return Gemma2ForCausalLM(config)


def _gpt2() -> "PreTrainedModel":
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_embd=HIDDEN_SIZE,
        n_layer=2,
        n_head=4,
        n_positions=512,
        initializer_range=0.2,
    )
    return GPT2LMHeadModel(config)


def _opt() -> "PreTrainedModel":
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=HIDDEN_SIZE,
        word_embed_proj_dim=HIDDEN_SIZE,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        init_std=0.2,
    )
    return OPTForCausalLM(config)


def _t5() -> "PreTrainedModel":
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=VOCAB_SIZE,
        d_model=HIDDEN_SIZE,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        initializer_factor=3.0,
    )
    return T5ForConditionalGeneration(config)


BUILDERS: dict[str, Callable[[], "PreTrainedModel"]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gpt2": _gpt2,
    "opt": _opt,
    "mistral": _mistral,
    "gemma2": _gemma2,
    "t5": _t5,
}
DECODERS = tuple(kind for kind in BUILDERS if kind != "t5")


def build_base(kind: str, folder: Path, *, seed: int = 0) -> Path:
    """Write the tiny model `kind` and its tokenizer to `folder`; same seed, same bytes."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BUILDERS[kind]().float().eval()
    tokenizer = build_tokenizer(append_eos=kind == "t5")
    for config in (model.config, model.generation_config):
        config.pad_token_id = tokenizer.pad_token_id
        config.eos_token_id = tokenizer.eos_token_id
        config.bos_token_id = tokenizer.bos_token_id
        if kind == "t5":
            config.decoder_start_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_bart(folder: Path) -> Path:
    """Write a tiny BART, an encoder-decoder whose encoder counts positions from the first index."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    config = BartConfig(
        vocab_size=VOCAB_SIZE,
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
