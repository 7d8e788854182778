"""In half precision, what is structurally wrong is refused, and what only rounds is not."""

import pytest
import torch
import transformers as hf

from softhub.inference.engine import PromptModel
from softhub.model.loading import load_base
from softhub.model.probe import Capabilities
from softhub.tasks import Task
from tests.families import BUILDERS, WINDOW
from tests.model.test_probe import logits_alone
from tests.prompts import soft_prompt
from tests.tiny import BUILDERS as USUAL
from tests.tiny import build_tokenizer, llama_like

TASK = Task(template="{text}", labels={"a": " positive", "b": " negative"})
TEXTS = [
    "good value",
    "The battery lasts a whole day and the camera takes sharp pictures. The battery lasts",
    "It broke after two days and nobody",
    "Review: The sound is good, the screen is not great, the price is fair. Great value",
]
HALVES = (torch.bfloat16, torch.float16)


def cohere2():
    layers = ["sliding_attention", "full_attention"]
    return hf.Cohere2ForCausalLM(
        hf.Cohere2Config(**llama_like(sliding_window=12, layer_types=layers))
    )


def base_of(build, dtype, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build().to(dtype).eval()
    for config in (model.config, model.generation_config):
        config.pad_token_id, config.eos_token_id, config.bos_token_id = 0, 1, 2
        if model.config.is_encoder_decoder:
            config.decoder_start_token_id = 0
    tokenizer = build_tokenizer(append_eos=model.config.is_encoder_decoder)
    return load_base(model, tokenizer=tokenizer, name="half")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("build", [cohere2, BUILDERS["gpt_neo"]], ids=["cohere2", "gpt_neo"])
@pytest.mark.parametrize("seed", [0, 1])
def test_keys_that_ignore_a_window_are_not_shared(build, dtype, seed):
    base = base_of(build, dtype, seed)
    assert base.capabilities.rows(0).shares_keys
    answers = base.capabilities.rows(100)
    assert (answers.batching, answers.shares_keys) == ("padded", False)
    model, prompt = PromptModel(base), soft_prompt(base, 20, TASK)
    vectors = prompt.vectors * float(base.embedding.float().std())
    object.__setattr__(prompt, "vectors", vectors)
    model.load_prompt(prompt, name="p")
    candidates = model.encoder.candidates_of(TASK)
    for text, found in zip(TEXTS, model.predict(TEXTS, prompt="p"), strict=True):
        ids = list(model.encoder.encode_plain(text).ids)
        for label, answer in zip("ab", candidates.sequences, strict=True):
            logits = logits_alone(base, ids, vectors.to(dtype), answer[:-1])[-len(answer) :]
            along = logits.float().log_softmax(-1)
            alone = float(along[range(len(answer)), answer].sum())
            assert found.scores[label] == pytest.approx(alone, abs=0.03)


KINDS = {**USUAL, **{kind: BUILDERS[kind] for kind in ("jamba", "led", "pegasus", "phi3")}}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", KINDS)
def test_rounding_alone_refuses_nothing(kind, dtype):
    exact, rounded = (base_of(KINDS[kind], each).capabilities for each in (torch.float32, dtype))
    assert _found(rounded) == _found(exact)


def _found(answers: Capabilities):
    rows = [answers.rows(width) for width in (0, WINDOW + 1)]
    found = [(each.batching, each.shares_keys, each.continues) for each in rows]
    texts = [answers.texts(0, 0, prompted=prompted) for prompted in (False, True)]
    return [*found, *((each.batching, each.from_cache) for each in texts), answers.packs]


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 8), (torch.bfloat16, 10)])
def test_half_precision_asks_a_quarter_more(dtype, most):
    base, passes = base_of(USUAL["llama"], dtype), []
    base.model.get_decoder().register_forward_hook(lambda *_: passes.append(1))
    base.capabilities.rows(0)
    base.capabilities.texts(0, 0, prompted=True)
    _ = base.capabilities.packs
    assert len(passes) <= most + 4


def test_a_wrong_continuation_from_keys_is_none_of_the_keys_alone():
    """A shared prompt that scores texts, but continues no word, would be continued otherwise."""
    answers = base_of(BUILDERS["gpt_neo"], torch.float32).capabilities.rows(WINDOW + 1)
    assert not answers.shares_keys
    assert answers.continues
