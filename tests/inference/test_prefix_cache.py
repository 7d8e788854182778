"""Keys and values of prompts under a byte budget: the answers do not depend on it."""

import gc
import threading

import pytest
import torch

from softhub.errors import ConfigError
from softhub.inference.engine import PromptModel
from tests.prompts import MOOD, SUMMARY, TEXTS, soft_prompt

BYTES = 2 * 2 * 2 * 8 * 4  # of one virtual token: layers, keys and values, heads, width, float32


def model_with(base, budget, *, prompts=6, tokens=5, task=MOOD, **options):
    model = PromptModel(base, prefix_budget=budget)
    for seed in range(prompts):
        loaded = soft_prompt(base, tokens, task, seed=seed)
        model.load_prompt(loaded, name=f"p{seed}", **options)
    return model


def answers(model, names):
    found = model.predict(TEXTS, prompt=names, task=MOOD)
    return [tuple(each.scores.values()) for each in found]


ROWS = ["p0", "p1", "p2", None, "p0"]


@pytest.mark.parametrize("prompts_that_fit", [0, 1, 2, 3, 6])
def test_hit_miss_and_eviction_give_the_same_scores_bit_for_bit(prompts_that_fit, loaded):
    base = loaded("llama")
    roomy = model_with(base, 10**9)
    expected = {shift: answers(roomy, rotated(shift)) for shift in range(6)}
    tight = model_with(base, prompts_that_fit * 5 * BYTES)
    for shift in [0, 1, 2, 3, 4, 5, 0, 0, 3, 1, 5]:
        assert answers(tight, rotated(shift)) == expected[shift]
        assert tight.memory().prefix_bytes <= prompts_that_fit * 5 * BYTES
    # The same working set twice: the second pass is all hits where everything fits.
    assert answers(roomy, rotated(2)) == expected[2]


def rotated(shift):
    return [name and f"p{(int(name[1:]) + shift) % 6}" for name in ROWS]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_generated_texts_do_not_depend_on_the_budget(kind, loaded):
    base = loaded(kind)
    roomy, tight = (model_with(base, budget, task=SUMMARY) for budget in (10**9, 5 * 1024))
    for shift in range(4):
        names = rotated(shift)
        options = {"prompt": names, "max_new_tokens": 8}
        assert tight.generate(TEXTS, **options) == roomy.generate(TEXTS, **options)


def test_the_least_recently_used_is_discarded(loaded):
    model = model_with(loaded("llama"), 2 * 5 * BYTES, prompts=3)
    for name in ["p0", "p1", "p0", "p2", "p0", "p1"]:
        model.predict(TEXTS[:1], prompt=name)
    uses = model.memory().uses
    assert [(uses[n].hits, uses[n].misses, uses[n].evictions) for n in ("p0", "p1", "p2")] == [
        (2, 1, 0),
        (0, 2, 1),
        (0, 1, 1),
    ]


@pytest.mark.parametrize("prompts_that_fit", [1, 2, 4])
def test_a_call_computes_each_prompt_once_even_if_few_fit(prompts_that_fit, loaded):
    model = model_with(loaded("llama"), prompts_that_fit * 5 * BYTES)
    names = [f"p{row % 6}" for row in range(36)]
    texts = [TEXTS[row % 5] for row in range(36)]
    found = model.predict(texts, prompt=names, batch_size=1)
    uses = model.memory().uses
    assert [uses[f"p{number}"].misses for number in range(6)] == [1] * 6
    assert model.predict(texts, prompt=names, batch_size=1) == found


def test_a_pinned_prompt_stays_and_memory_says_so(loaded):
    base = loaded("llama")
    model = model_with(base, 5 * BYTES, prompts=3)
    model.load_prompt(soft_prompt(base, 5, MOOD, seed=9), name="pinned", pin=True)
    for name in ["pinned", "p0", "p1", "p2", "pinned"]:
        model.predict(TEXTS[:1], prompt=name)
    memory = model.memory()
    assert memory.pinned == ("pinned",)
    assert (memory.uses["pinned"].hits, memory.uses["pinned"].evictions) == (1, 0)
    assert memory.prefix_bytes == memory.prefix_budget == 5 * BYTES


def test_a_prompt_larger_than_the_budget_evicts_nothing(loaded):
    base = loaded("llama")
    model = model_with(base, 5 * BYTES, prompts=1)
    model.load_prompt(soft_prompt(base, 6, MOOD), name="large")
    for name in ["p0", "large", "p0"]:
        model.predict(TEXTS[:1], prompt=name)
    assert model.memory().uses["p0"].hits == 1
    assert model.memory().uses["p0"].evictions == 0


def test_memory_counts_what_is_loaded_and_nothing_that_was(loaded):
    base = loaded("llama")
    model = model_with(base, 10**9, prompts=4)
    model.predict(TEXTS[:4], prompt=["p0", "p1", "p2", "p3"])
    memory = model.memory()
    assert (memory.prompts, memory.prefixes) == (4, 4)
    assert memory.vector_bytes == 4 * 5 * 32 * 4
    assert memory.prefix_bytes == 4 * 5 * BYTES
    model.load_prompt(soft_prompt(base, 5, MOOD, seed=8), name="p0")  # a new revision
    for name in ("p1", "p2"):
        model.unload_prompt(name)
    gc.collect()
    memory = model.memory()
    assert (memory.prompts, memory.prefixes, memory.prefix_bytes) == (2, 1, 5 * BYTES)


def test_the_default_budget_is_a_share_of_free_memory(loaded):
    import psutil

    budget = PromptModel(loaded("llama")).memory().prefix_budget
    assert 0 < budget < psutil.virtual_memory().total // 2


def test_a_negative_budget_is_refused(loaded):
    with pytest.raises(ConfigError, match="prefix_budget is -1"):
        PromptModel(loaded("llama"), prefix_budget=-1)


def test_threads_that_evict_one_another_get_right_answers(loaded):
    base = loaded("llama")
    model = model_with(base, 2 * 5 * BYTES)
    roomy = model_with(base, 10**9)
    expected = {shift: answers(roomy, rotated(shift)) for shift in range(6)}
    wrong = []

    def work(start):
        with torch.no_grad():
            for step in range(12):
                shift = (start + step) % 6
                if answers(model, rotated(shift)) != expected[shift]:
                    wrong.append(shift)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert model.memory().prefix_bytes <= 2 * 5 * BYTES
