"""What a request leaves out, and what it may not ask for with a prompt."""

import asyncio
from types import SimpleNamespace

import pytest

from softhub.errors import ConfigError
from softhub.inference import options as engine_options
from softhub.serving.vllm import options
from softhub.serving.vllm.generation import PromptNames, PromptServing
from softhub.serving.vllm.options import check_options, task_options
from softhub.tasks import Task, Template
from tests.prompts import MOOD

TASK = Task(
    name="t",
    kind="generation",
    template=Template("{text}"),
    generation={"max_new_tokens": 9, "stop": ["\n"], "repetition_penalty": 1.2},
)
SAMPLED = Task(
    name="t",
    kind="generation",
    template=Template("{text}"),
    generation={"do_sample": True, "temperature": 0.7, "top_k": 50},
)


def test_without_a_task_texts_are_decoded_as_softhub_does_by_default():
    assert options.NEW_TOKENS == engine_options.NEW_TOKENS
    assert task_options(None, (), "max_tokens") == {"max_tokens": 64, "temperature": 0.0}


def test_the_task_fills_in_what_the_request_leaves_out():
    assert task_options(TASK, {"model", "prompt"}, "max_tokens") == {
        "max_tokens": 9,
        "temperature": 0.0,
        "repetition_penalty": 1.2,
        "stop": ["\n"],
    }
    assert task_options(SAMPLED, (), "max_completion_tokens") == {
        "max_completion_tokens": 64,
        "temperature": 0.7,
        "top_p": 1.0,
        "top_k": 50,
    }


@pytest.mark.parametrize("length", ["max_tokens", "max_completion_tokens"])
def test_what_the_request_has_is_its_own(length):
    given = {length, "temperature", "top_p", "top_k", "repetition_penalty", "stop"}
    assert task_options(TASK, given, "max_completion_tokens") == {}
    assert task_options(SAMPLED, given, "max_completion_tokens") == {}


def test_the_sampling_that_a_request_leaves_out_is_the_tasks():
    left = task_options(SAMPLED, {"max_tokens", "top_p"}, "max_tokens")
    assert left == {"temperature": 0.7, "top_k": 50}
    assert task_options(SAMPLED, {"max_tokens", "temperature"}, "max_tokens") == {
        "top_p": 1.0,
        "top_k": 50,
    }
    greedy = {"max_tokens", "repetition_penalty", "stop", "top_p"}
    assert task_options(TASK, greedy, "max_tokens") == {"temperature": 1.0, "top_k": 0}


@pytest.mark.parametrize(
    "wrong",
    [{"echo": True}, {"prompt_logprobs": 0}, {"use_beam_search": True}, {"suffix": "x"}],
)
def test_options_that_would_answer_wrongly_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        check_options(SimpleNamespace(**wrong), "mood")
    neutral = {"echo": False, "prompt_logprobs": None, "use_beam_search": False, "suffix": None}
    check_options(SimpleNamespace(**neutral), "mood")


def ids_of(prompts, name, text, new_tokens=8):
    """Token ids that a completion gets for a text."""
    serving = PromptServing(None, prompts)
    request = SimpleNamespace(prompt=text, max_tokens=new_tokens)

    async def ids():
        return await serving._token_ids(request, await prompts.find(name))

    return asyncio.run(ids())


def test_a_text_is_encoded_in_its_task_and_never_shortened_unnoticed(base, prompts_of, adapter):
    prompts = prompts_of(f"p={adapter('p', MOOD)},plain={adapter('plain', tokens=3)}")
    expected = base.tokenizer("Review: Good.\nSentiment:", add_special_tokens=False)["input_ids"]
    assert ids_of(prompts, "p", "Good.") == [expected]
    alone = base.tokenizer("Good.")["input_ids"]
    assert ids_of(prompts, "plain", ["Good.", "Good."]) == [alone, alone]
    ((*control,),) = ids_of(prompts, "plain", "<|im_end|>")
    assert base.tokenizer.convert_tokens_to_ids("<|im_end|>") not in control
    with pytest.raises(ConfigError, match="shorten it"):
        ids_of(prompts, "p", "Good. " * 50, new_tokens=470)


@pytest.mark.parametrize("rows", [[5, 6], [[5, 6], [7]], [[]], []], ids=str)
def test_token_ids_are_taken_as_they_are(prompts_of, adapter, rows):
    prompts = prompts_of(f"plain={adapter('plain', tokens=3)}")
    assert ids_of(prompts, "plain", rows) in (rows, [rows])


def test_the_name_of_a_prompt_is_known_and_in_the_answer():
    stock = SimpleNamespace(model_config=1, is_base_model=lambda name: True)
    names = PromptNames(stock, "mood")
    assert names.is_base_model("mood") and not names.is_base_model("other")
    assert names.model_name() == "mood" and names.model_config == 1
