"""Bases that compute long texts otherwise, by a choice that they keep or in chunks."""

import pytest
import torch
import transformers as hf

from softhub.errors import BaseModelError
from softhub.inference.engine import PromptModel
from softhub.model.assembly import pad_rows
from softhub.model.scoring import encode_rows, target_logprobs
from tests.families import bart_like
from tests.model.test_half_precision import base_of
from tests.model.test_probe import logprob_alone
from tests.prompts import soft_prompt
from tests.tiny import HIDDEN_SIZE, VOCAB_SIZE, llama_like


def bigbird(**extra):
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    sizes = {name: llama_like()[name] for name in (*names, "vocab_size", "initializer_range")}
    config = hf.BigBirdConfig(
        **sizes, max_position_embeddings=256, block_size=4, num_random_blocks=1, **extra
    )
    return hf.BigBirdForCausalLM(config)


def bigbird_pegasus(**extra):
    model, config = hf.BigBirdPegasusForConditionalGeneration, hf.BigBirdPegasusConfig
    sizes = {"max_position_embeddings": 256, "block_size": 4, "num_random_blocks": 1}
    return bart_like(model, config, **sizes, **extra)


def reformer(chunk, **extra):
    return hf.ReformerModelWithLMHead(
        hf.ReformerConfig(
            **{"attn_layers": ["local", "local"], **extra},
            vocab_size=VOCAB_SIZE,
            hidden_size=HIDDEN_SIZE,
            num_attention_heads=4,
            attention_head_size=8,
            feed_forward_size=64,
            is_decoder=True,
            axial_pos_embds=False,
            max_position_embeddings=512,
            initializer_range=0.2,
            local_attn_chunk_length=chunk,
            lsh_attn_chunk_length=chunk,
        )
    )


def modes(base):
    return {getattr(each, "attention_type", None) for each in base.model.modules()}


@pytest.mark.parametrize("build", [lambda: bigbird(is_decoder=True), bigbird_pegasus])
def test_a_base_that_keeps_another_attention_is_refused_and_left_as_it_was(build):
    base = base_of(build, torch.float32)
    before = modes(base)
    assert "block_sparse" in before
    said = "changes its attention_type from 'block_sparse' to 'original_full'"
    for _ in range(2):
        with pytest.raises(BaseModelError, match=said):
            encode_rows(base, [None], pad_rows([[20, 30]]), keep_cache=False)
        with pytest.raises(BaseModelError, match=said):
            PromptModel(base).load_prompt(soft_prompt(base, 3), name="p")
        with pytest.raises(BaseModelError, match=said):
            PromptModel(base).generate(["good"], max_new_tokens=2)
    assert modes(base) == before


def test_a_number_that_the_first_text_decides_is_refused():
    build = lambda: reformer(16, attn_layers=["lsh", "local"], num_buckets=None, hash_seed=0)  # noqa: E731
    base = base_of(build, torch.float32)
    with pytest.raises(BaseModelError, match="changes its num_buckets from None to"):
        PromptModel(base).generate(["good " * 30], max_new_tokens=2)


@pytest.mark.parametrize("build", [bigbird, bigbird_pegasus])
def test_the_same_base_with_full_attention_is_exact(build):
    extra = {"is_decoder": True} if build is bigbird else {}
    base = base_of(lambda: build(attention_type="original_full", **extra), torch.float32)
    drawn = torch.Generator().manual_seed(0)
    texts = [torch.randint(10, 390, (length,), generator=drawn).tolist() for length in (60, 9)]
    found = target_logprobs(base, [None] * 2, pad_rows(texts), pad_rows([(80, 81)] * 2))
    expected = [logprob_alone(base, text, None, (80, 81)) for text in texts]
    assert found.sum(-1).tolist() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("chunk", [4, 16])
def test_texts_in_chunks_are_equal_or_refused(chunk):
    base = base_of(lambda: reformer(chunk), torch.float32)
    assert base.capabilities.windows[0] == chunk
    drawn = torch.Generator().manual_seed(1)
    answered = 0
    for lengths in ((1, 2), (6, 9), (20, 30), (30, 50), (32, 48)):
        texts = [torch.randint(10, 390, (length,), generator=drawn).tolist() for length in lengths]
        targets = pad_rows([(80, 81)] * 2, side="right")
        try:
            found = target_logprobs(base, [None] * 2, pad_rows(texts), targets).sum(-1)
        except BaseModelError as refused:
            assert f"for rows of more than {chunk} tokens" in str(refused)
            continue
        answered += 1
        expected = [logprob_alone(base, text, None, (80, 81)) for text in texts]
        assert found.tolist() == pytest.approx(expected, abs=1e-3)
    assert answered >= 1
