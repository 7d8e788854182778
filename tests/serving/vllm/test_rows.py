"""Rows of prompt and text: what stands where, and what keeps the prefix cache right."""

import hashlib

import pytest
import torch

from softhub.adapter.validation import check_folder
from softhub.errors import ConfigError
from softhub.serving.vllm.blocks import describe_reuse, reusable_tokens
from softhub.serving.vllm.rows import SALT, assemble


@pytest.fixture
def prompts(prompts_of, adapter):
    adapter("one", seed=1)
    return prompts_of(str(adapter("two", tokens=9, seed=2).parent))


async def _find(prompts, name):
    return await prompts.find(name)


def find(prompts, name):
    import asyncio

    return asyncio.run(_find(prompts, name))


def test_a_row_is_the_prompt_and_then_the_text(prompts):
    prompt = find(prompts, "two")
    row = assemble(prompt, [7, 8, 9])
    assert torch.equal(row.embeds[:9], prompt.vectors)
    assert not row.embeds[9:].any()
    assert row.embeds.shape == (12, prompt.vectors.shape[1])
    assert row.ids[9:] == [7, 8, 9]
    assert row.is_token == [False] * 9 + [True] * 3


def test_a_salt_is_the_digest_of_the_stored_vectors(prompts, adapter):
    stored = check_folder(adapter("one", seed=1)).vectors
    digest = hashlib.sha256(stored.tobytes()).hexdigest()
    row = assemble(find(prompts, "one"), [7])
    assert row.cache_salt == f"{SALT}{digest}"


def test_prompts_revisions_and_clients_have_salts_of_their_own(prompts, adapter):
    old = find(prompts, "one")
    prompts.load("one", check_folder(adapter("again", seed=3)))
    salts = {
        assemble(old, [7]).cache_salt,
        assemble(find(prompts, "one"), [7]).cache_salt,
        assemble(find(prompts, "two"), [7]).cache_salt,
        assemble(old, [7], client_salt="tenant").cache_salt,
    }
    assert len(salts) == 4
    # The same vectors share their blocks again.
    prompts.load("one", check_folder(adapter("same", seed=1)))
    assert assemble(find(prompts, "one"), [7]).cache_salt in salts


def test_texts_share_the_blocks_of_the_prompt(prompts):
    prompt = find(prompts, "two")
    first, second = assemble(prompt, [7, 8]), assemble(prompt, [300])
    assert first.ids[:9] == second.ids[:9]


def test_a_repetition_penalty_meets_no_token_that_the_text_does_not_have(prompts):
    row = assemble(find(prompts, "two"), [7, 8], repetition_penalty=1.3)
    assert set(row.ids) == {7, 8}


def test_a_text_without_tokens_is_refused(prompts):
    with pytest.raises(ConfigError, match="no tokens"):
        assemble(find(prompts, "one"), [])


def test_only_full_blocks_are_reused():
    # As measured with --block-size 32: 0, 32, 64 and 96 of 20, 32, 64 and 100 virtual tokens.
    assert [reusable_tokens(count, 32) for count in (20, 32, 64, 100)] == [0, 32, 64, 96]
    text = describe_reuse(100)
    assert text == (
        "reuses 96 of 100 virtual tokens with blocks of 16, 96 with blocks of 32, "
        "64 with blocks of 64, 0 with blocks of 128"
    )
