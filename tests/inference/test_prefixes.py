"""Prefixes, prompts and the bare base in one batch: each row as plain transformers has it alone."""

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from softhub.errors import ConfigError
from softhub.inference.requests import LoadedPrompt
from softhub.tasks import Task
from tests.families import WINDOW, family_base
from tests.prompts import MOOD, SUMMARY, TEXTS, TOPIC, model_with, prefix, soft_prompt
from tests.references import assert_equal_in_float32

NAMES = ["prefix", "prompt", None, "long prefix", "prompt"]


def prompts_of(base, task):
    return {
        "prefix": prefix(base, 3, task, seed=1),
        "prompt": soft_prompt(base, 6, task, seed=2),
        "long prefix": prefix(base, 11, task, seed=3),
    }


def past_of(prompt):
    """The filled cache of a prefix, by PEFT's documented layout [P, layers, 2, heads, head_dim]."""
    shape = prompt.manifest.prefix
    parts = prompt.vectors.view(
        -1, shape.num_layers, 2, shape.num_key_value_heads, shape.head_dim
    ).permute(1, 2, 3, 0, 4)
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(parts):
        cache.update(keys[None], values[None], layer)
    return cache


@torch.no_grad()
def logprob(plain, prompt, ids, answer):
    """Summed log-probability of an answer behind a prompt and a text, one row, no padding."""
    tokens = torch.tensor([[*ids, *answer[:-1]]])
    if prompt is None:
        logits = plain(input_ids=tokens).logits
    elif prompt.prompt_type == "prefix":
        mask = torch.ones(1, prompt.num_virtual_tokens + tokens.shape[1])
        logits = plain(
            input_ids=tokens, past_key_values=past_of(prompt), attention_mask=mask
        ).logits
    else:
        embedded = torch.cat([prompt.vectors, plain.get_input_embeddings()(tokens)[0]])
        logits = plain(inputs_embeds=embedded[None]).logits
    rows = logits[0, -len(answer) :].log_softmax(-1)
    return sum(row[token].item() for row, token in zip(rows, answer, strict=True))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "opt"])
@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("task", [MOOD, TOPIC], ids=["one token", "several tokens"])
def test_labels_in_a_mixed_batch(kind, batch_size, task, loaded, folder_of):
    base = loaded(kind)
    prompts = prompts_of(base, task)
    found = model_with(base, prompts).predict(TEXTS, prompt=NAMES, task=task, batch_size=batch_size)
    plain = AutoModelForCausalLM.from_pretrained(folder_of(kind)).eval()
    for prediction, text, name in zip(found, TEXTS, NAMES, strict=True):
        ids = base.tokenizer(task.template.render({"text": text}))["input_ids"]
        expected = {}
        for label, words in task.verbalizer.words:
            answers = [
                base.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words
            ]
            each = [logprob(plain, prompts.get(name), ids, answer) for answer in answers]
            expected[label] = torch.tensor(each).logsumexp(0).item()
        assert_equal_in_float32(prediction.scores, expected)


def test_reference_texts_in_a_mixed_batch(loaded, folder_of):
    base, target = loaded("llama"), " a waste of money"
    prompts = prompts_of(base, SUMMARY)
    model = model_with(base, prompts)
    found = model.target_logprobs(TEXTS, [target] * 5, prompt=NAMES, task=SUMMARY)
    plain = AutoModelForCausalLM.from_pretrained(folder_of("llama")).eval()
    answer = model.encoder.target(SUMMARY.template, target)
    for scores, text, name in zip(found, TEXTS, NAMES, strict=True):
        ids = base.tokenizer(SUMMARY.template.render({"text": text}))["input_ids"]
        assert_equal_in_float32(sum(scores), logprob(plain, prompts.get(name), ids, answer))


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"repetition_penalty": 1.3}])
def test_texts_generated_in_a_mixed_batch(options, loaded, folder_of):
    base = loaded("llama")
    prompts = prompts_of(base, SUMMARY)
    model = model_with(base, prompts)
    together = model.generate(TEXTS, prompt=NAMES, task=SUMMARY, **options)
    alone = [
        model.generate([text], prompt=name, task=SUMMARY, **options)[0]
        for text, name in zip(TEXTS, NAMES, strict=True)
    ]
    assert together == alone
    if options:
        return
    plain = AutoModelForCausalLM.from_pretrained(folder_of("llama")).eval()
    inputs = base.tokenizer(SUMMARY.template.render({"text": TEXTS[0]}), return_tensors="pt")
    cache, ids = past_of(prompts["prefix"]), inputs["input_ids"]
    written = []
    for _ in range(6):  # greedy decoding by hand
        mask = torch.ones(1, cache.get_seq_length() + ids.shape[1])
        with torch.no_grad():
            logits = plain(input_ids=ids, past_key_values=cache, attention_mask=mask).logits
        ids = logits[:, -1:].argmax(-1)
        if ids.item() == base.tokenizer.eos_token_id:
            break
        written.append(ids.item())
    assert base.tokenizer.decode(written, skip_special_tokens=True) == together[0]


def test_a_longer_row_of_the_batch_changes_nothing():
    """GPT-Neo shares keys and values only of rows that are no longer than its window."""
    base = family_base("gpt_neo")
    assert base.capabilities.windows == (WINDOW,)
    model = model_with(base, {"prefix": prefix(base, 3), "prompt": soft_prompt(base, 3)})
    long, names = " ".join(["good"] * 2 * WINDOW), ["prefix", None, "prompt", "prefix"]
    texts = ["Good.", long, long, "Bad."]
    task = Task(template="{text} is", labels={"good": " good", "bad": " bad"})
    pairs = [*zip(texts, names, strict=True)]
    found = model.predict(texts, prompt=names, task=task)
    alone = [model.predict(text, prompt=name, task=task) for text, name in pairs]
    for one, other in zip(found, alone, strict=True):
        assert_equal_in_float32(one.scores, other.scores)
    options = {"max_new_tokens": 2}
    together = model.generate(texts, prompt=names, **options)
    assert together == [model.generate(text, prompt=name, **options) for text, name in pairs]
    answers = [" it", " it is", " so", " good"]
    scores = model.target_logprobs(texts, answers, prompt=names, task=SUMMARY)
    for row, (text, name) in enumerate(pairs):
        one = model.target_logprobs(text, answers[row], prompt=name, task=SUMMARY)
        assert scores[row] == pytest.approx(one, abs=1e-4)
    with pytest.raises(ConfigError, match="A prefix needs cached keys and values"):
        model.predict(["Good.", long], prompt="prefix", task=task)


def test_a_prefix_has_no_embeddings_to_run_with_a_text(loaded):
    """Where a base computes rows of some length without cached keys only."""
    own = LoadedPrompt(prefix(loaded("llama"), 3).prepare(loaded("llama")), None)
    assert own.length == 3
    with pytest.raises(ConfigError, match="A prefix needs cached keys and values"):
        _ = own.vectors
