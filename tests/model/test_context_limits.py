"""How long a text and an answer may be, also of encoder-decoders with a limit for each part."""

import copy
from dataclasses import replace

import pytest
import transformers as hf

from softhub.errors import TaskError
from softhub.inference.engine import PromptModel
from softhub.model.config_lengths import position_limit
from softhub.tasks import Task
from softhub.training.encoded_task import encode_task
from tests.families import family_base
from tests.tiny import HIDDEN_SIZE, VOCAB_SIZE, llama_like

WRITING = Task(template="{text}", kind="generation")


@pytest.fixture(scope="module")
def led():
    return PromptModel(family_base("led"))


def test_a_composite_config_has_a_limit_for_each_part():
    long = llama_like(max_position_embeddings=256, cross_attention_hidden_size=HIDDEN_SIZE)
    config = hf.T5GemmaConfig(
        encoder=hf.T5GemmaModuleConfig(**llama_like()),
        decoder=hf.T5GemmaModuleConfig(**long),
        vocab_size=VOCAB_SIZE,
    )
    assert position_limit(config) == 512
    assert position_limit(config, part="decoder") == 256


def test_an_answer_longer_than_the_decoder_s_positions_is_named(led):
    assert (led.base.max_positions, led.base.max_answer) == (128, 64)
    expected = r"of up to 70 tokens does not fit into the 64 positions .* decoder"
    with pytest.raises(TaskError, match=expected):
        led.generate(["Good."], max_new_tokens=70)
    with pytest.raises(TaskError, match="does not fit into the 64 positions"):
        led.target_logprobs(["Good."], ["day " * 80], task=WRITING)
    rows = replace(WRITING, target_column="answer").to_examples(
        [{"text": "Good.", "answer": "day " * 80}]
    )
    with pytest.raises(TaskError, match="does not fit into the 64 positions"):
        encode_task(led.base, WRITING, rows, rows, virtual_tokens=4)


def test_a_forced_token_takes_a_position_of_the_answer(led):
    base = replace(led.base, model=copy.copy(led.base.model))
    base.model.generation_config = copy.copy(base.model.generation_config)
    base.model.generation_config.forced_bos_token_id = 2
    assert base.max_answer == 63


def test_an_answer_may_take_all_of_them(led):
    model = led.base.model
    assert len(led.generate(["Good."], max_new_tokens=64, min_new_tokens=64)) == 1
    target = led.encoder.target(WRITING.template, "day " * 30)
    assert len(target) <= 64
    assert led.target_logprobs(["Good."], ["day " * 30], task=WRITING)
    assert model.config.max_decoder_position_embeddings == 64


@pytest.mark.parametrize("kind", ["mpt", "switch"])
def test_other_bases_have_no_limit_of_the_answer_alone(kind):
    assert family_base(kind).max_answer is None
