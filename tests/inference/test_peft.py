"""A live PEFT model in one line: its adapters in right batches, and itself as it was."""

import warnings

import pytest
import torch
from peft import LoraConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from softhub.errors import BaseModelError, UnsupportedAdapter
from softhub.inference.engine import PromptModel
from softhub.model.loading import load_base
from softhub.model.prompt import SoftPrompt
from tests.prompts import MOOD, TEXTS
from tests.references import assert_equal_in_float32, sequence_logprob

ADAPTERS = {"short": 3, "default": 9}
NAMES = ["short", "default", None, "default", "short"]


def load_plain(folder, kind):
    auto = AutoModelForSeq2SeqLM if kind in ("t5", "bart") else AutoModelForCausalLM
    return auto.from_pretrained(folder)


def prompt_tuned(folder, kind):
    """A PEFT model with two prompt tuning adapters, as training leaves it, and its tokenizer."""
    task_type = "SEQ_2_SEQ_LM" if kind in ("t5", "bart") else "CAUSAL_LM"
    configs = {
        # PEFT stacks two prompts for an encoder-decoder, of which it uses the first.
        name: PromptTuningConfig(task_type=task_type, num_virtual_tokens=tokens)
        for name, tokens in ADAPTERS.items()
    }
    torch.manual_seed(0)
    model = get_peft_model(load_plain(folder, kind), configs["short"], adapter_name="short")
    model.add_adapter("default", configs["default"])
    return model.train(), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "gemma2", "t5", "bart"])
def test_its_adapters_score_as_in_peft_row_by_row(kind, folder_of):
    peft_model, tokenizer = prompt_tuned(folder_of(kind), kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # nothing about the base is unknown
        model = PromptModel.from_peft(peft_model, tokenizer)
    assert model.prompts == tuple(ADAPTERS)
    found = model.predict(TEXTS, prompt=NAMES, task=MOOD)
    peft_model.eval()
    bare = load_plain(folder_of(kind), kind).eval()
    start = bare.config.decoder_start_token_id if model.base.is_encoder_decoder else None
    for prediction, text, name in zip(found, TEXTS, NAMES, strict=True):
        if name is not None:
            peft_model.set_adapter(name)
        ids = tokenizer(MOOD.template.render({"text": text}))["input_ids"]
        plain, expected = bare if name is None else peft_model, {}
        for label, words in MOOD.verbalizer.words:
            words = [word if start is None else word.strip() for word in words]
            answers = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
            each = [sequence_logprob(plain, ids, answer, start) for answer in answers]
            expected[label] = torch.tensor(each).logsumexp(0).item()
        assert_equal_in_float32(prediction.scores, expected)


def test_the_peft_model_and_its_base_stay_as_they_were(folder_of):
    peft_model, tokenizer = prompt_tuned(folder_of("llama"), "llama")
    head = peft_model.get_base_model().lm_head.requires_grad_()
    before = {name: p.detach().clone() for name, p in peft_model.named_parameters()}
    flags = {name: p.requires_grad for name, p in peft_model.named_parameters()}
    modes = {name: module.training for name, module in peft_model.named_modules()}
    model = PromptModel.from_peft(peft_model, tokenizer, name="org/base")
    model.predict(TEXTS, prompt="short", task=MOOD)
    assert {name: p.requires_grad for name, p in peft_model.named_parameters()} == flags
    assert {name: module.training for name, module in peft_model.named_modules()} == modes
    assert all(torch.equal(p, before[name]) for name, p in peft_model.named_parameters())
    assert not model.base.model.training
    assert not any(parameter.requires_grad for parameter in model.base.model.parameters())
    assert model.base.model.lm_head.weight.data_ptr() == head.weight.data_ptr()  # shared
    assert model.base.name == "org/base"


def test_training_on_does_not_change_a_prompt_that_was_taken(folder_of):
    peft_model, tokenizer = prompt_tuned(folder_of("llama"), "llama")
    model = PromptModel.from_peft(peft_model, tokenizer)
    before = model.predict(TEXTS, prompt="default", task=MOOD)
    ids = torch.tensor([[5, 6, 7]])
    peft_model.set_adapter("default")
    optimizer = torch.optim.SGD([p for p in peft_model.parameters() if p.requires_grad], lr=1.0)
    peft_model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    assert model.predict(TEXTS, prompt="default", task=MOOD) == before


def test_an_adapter_becomes_a_prompt_to_save(folder_of, tmp_path):
    peft_model, tokenizer = prompt_tuned(folder_of("t5"), "t5")
    base = load_base(peft_model.get_base_model(), tokenizer=tokenizer)
    prompt = SoftPrompt.from_peft(peft_model, base, "short")
    rows = peft_model.prompt_encoder["short"].embedding.weight
    assert torch.equal(prompt.vectors, rows[:3]) and rows.shape[0] == 6
    again = SoftPrompt.from_pretrained(prompt.save_pretrained(tmp_path / "short"))
    assert torch.equal(again.vectors, prompt.vectors)
    assert again.manifest.base_model == base.name == "tiny-t5"
    assert again.manifest.fingerprint == base.fingerprint


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (LoraConfig(task_type="CAUSAL_LM"), "'LORA'; expected one of PROMPT_TUNING"),
        (PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=4), "'P_TUNING'"),
    ],
    ids=["lora", "p-tuning"],
)
def test_other_adapters_are_refused_with_the_reason(config, says, folder_of):
    tokenizer = AutoTokenizer.from_pretrained(folder_of("llama"))
    peft_model = get_peft_model(load_plain(folder_of("llama"), "llama"), config)
    with pytest.raises(UnsupportedAdapter, match=f"adapter 'default'.*{says}"):
        PromptModel.from_peft(peft_model, tokenizer)


def test_load_base_points_to_it(folder_of):
    peft_model, tokenizer = prompt_tuned(folder_of("llama"), "llama")
    with pytest.raises(BaseModelError, match=r"Found a PeftModelForCausalLM.*from_peft"):
        load_base(peft_model, tokenizer=tokenizer)
