"""What is loaded, what is refused and why, and what a reload changes for whom."""

import asyncio
import json
from pathlib import Path

import pytest
import torch

from softhub.adapter.adapter import Adapter
from softhub.adapter.layout import CONFIG
from softhub.adapter.validation import check_folder
from softhub.errors import (
    ConfigError,
    HubError,
    IncompatiblePrompt,
    InvalidAdapter,
    PromptNotLoaded,
    RepositoryNotFound,
    UnsupportedAdapter,
)
from softhub.hub import Hub
from softhub.model.prompt import SoftPrompt
from softhub.serving.vllm.prompts import Prompts
from softhub.serving.vllm.served import check_kind
from softhub.serving.vllm.sources import Sources, parse_sources
from softhub.tasks import Task, Template
from tests.prompts import MOOD, SUMMARY, soft_prompt
from tests.serving.vllm.conftest import BASE, served


def find(prompts, name):
    return asyncio.run(prompts.find(name))


def test_a_folder_of_adapters_and_a_name_of_ones_own(prompts_of, adapter):
    adapter("mood", MOOD)
    other = adapter("summary", SUMMARY, tokens=9, seed=2)
    prompts = prompts_of(f"{other.parent}, short={other}")
    assert prompts.names == ("mood", "summary", "short")
    assert find(prompts, "mood").task.name == "mood"
    assert find(prompts, "mood").candidates.labels == ("good", "bad")
    expected = SoftPrompt.from_pretrained(other).vectors
    assert torch.equal(find(prompts, "short").vectors, expected)
    assert find(prompts, "short").candidates is None


def test_a_lock_file_starts_two_replicas_alike(prompts_of, adapter, tmp_path):
    hub = Hub()
    hub.push(adapter("a", MOOD, seed=1), "me/mood")
    hub.push(adapter("b", MOOD, seed=2), "me/other")
    lock = tmp_path / "softhub.lock"
    hub.lock(lock, {"mood": "me/mood", "other": "me/other"})
    hub.push(adapter("c", MOOD, seed=3), "me/mood")  # later than the lock
    first, second = prompts_of(str(lock)), prompts_of(str(lock))
    assert first.names == second.names == ("mood", "other")
    expected = SoftPrompt.from_pretrained(adapter("a", MOOD, seed=1)).vectors
    for prompts in (first, second):
        assert torch.equal(find(prompts, "mood").vectors, expected)


def test_an_adapter_of_the_hub_is_pulled_once_when_it_is_first_named(prompts_of, adapter):
    hub, pulled = Hub(), []
    hub.push(adapter("a", MOOD), "me/mood", tags=["v1"])
    read = hub.read
    hub.read = lambda *names, **options: pulled.append(names) or read(*names, **options)
    prompts = prompts_of("me/*", hub)
    assert prompts.names == ()

    async def ask():
        return await asyncio.gather(*(prompts.find("me/mood") for _ in range(8)))

    found = asyncio.run(ask())
    assert len(pulled) == 1 and len(set(map(id, found))) == 1
    assert find(prompts, "me/mood@v1").digest == found[0].digest
    assert find(prompts, "you/mood") is None
    with pytest.raises(RepositoryNotFound):
        find(prompts, "me/nothing")
    assert prompts.names == ("me/mood", "me/mood@v1")


def test_a_folder_of_an_allowed_name_is_not_read_in_place_of_the_hub(
    prompts_of, adapter, monkeypatch
):
    monkeypatch.chdir(adapter("me/mood").parent.parent)
    with pytest.raises(RepositoryNotFound):
        find(prompts_of("me/*"), "me/mood")


def test_those_that_were_pulled_longest_ago_make_room(prompts_of, adapter):
    hub, folder = Hub(), adapter("a")
    for name in ("one", "two", "three"):
        hub.push(folder, f"me/{name}")
    prompts = prompts_of(f"fixed={folder},me/*", hub, most=2)
    for name in ("me/one", "me/two", "me/one", "me/three"):
        find(prompts, name)
    assert prompts.names == ("fixed", "me/one", "me/three")


def test_a_load_replaces_for_later_requests_only(prompts_of, adapter):
    old, new = adapter("old", seed=1), adapter("new", seed=2)
    prompts = prompts_of(f"p={old}")
    under_way = find(prompts, "p")
    prompts.load("p", check_folder(new))
    assert torch.equal(under_way.vectors, SoftPrompt.from_pretrained(old).vectors)
    assert torch.equal(find(prompts, "p").vectors, SoftPrompt.from_pretrained(new).vectors)
    prompts.unload("p")
    assert find(prompts, "p") is None
    with pytest.raises(PromptNotLoaded):
        prompts.unload("p")


def test_a_failed_load_leaves_what_was_there(prompts_of, adapter, tmp_path):
    prompts = prompts_of(f"p={adapter('p')}")
    before = find(prompts, "p")
    with pytest.raises(InvalidAdapter):
        asyncio.run(prompts.load_from("p", str(tmp_path)))
    assert find(prompts, "p") is before


def test_the_base_is_no_prompt(prompts_of, adapter):
    prompts = prompts_of()
    assert find(prompts, BASE) is None and find(prompts, None) is None
    with pytest.raises(ConfigError, match="base model's name"):
        prompts.load(BASE, check_folder(adapter("a")))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tokenizer": "another"}, "tokenizer differs"),
        ({"model_type": "qwen2"}, "model type differs"),
        ({"num_layers": 30}, "number of layers differs"),
    ],
)
def test_a_prompt_of_another_base_is_refused(base, adapter, changes, reason):
    prompts = Prompts(served(base, **changes), Sources({}), Hub())
    with pytest.raises(IncompatiblePrompt, match=reason):
        prompts.load("p", check_folder(adapter("p")))


def test_a_prompt_of_another_width_is_refused_even_without_a_fingerprint(prompts_of, adapter):
    folder = adapter("wide", hidden_size=48, fingerprint=None)
    with pytest.raises(IncompatiblePrompt, match="width 48"):
        prompts_of(f"p={folder}")


def test_a_prompt_of_an_encoder_decoder_is_refused(prompts_of, loaded, tmp_path):
    folder = soft_prompt(loaded("t5"), 4).save_pretrained(tmp_path / "t5")
    with pytest.raises(UnsupportedAdapter, match="encoder-decoder"):
        prompts_of(f"p={folder}")


@pytest.mark.parametrize("method", ["PREFIX_TUNING", "CARTRIDGE"])
def test_keys_and_values_are_refused_with_the_reason(method):
    config = json.dumps({"peft_type": method, "task_type": "CAUSAL_LM"}).encode()
    with pytest.raises(UnsupportedAdapter, match="keys and values of every layer"):
        check_kind(Adapter({CONFIG: config}, "me/prefix"))


@pytest.mark.parametrize("option", [{"num_beams": 4}, {"no_repeat_ngram_size": 3}])
def test_a_task_that_vllm_cannot_generate_as_trained_is_refused(prompts_of, adapter, option):
    task = Task(name="t", kind="generation", template=Template("{text}"), generation=option)
    with pytest.raises(ConfigError, match=next(iter(option))):
        prompts_of(f"p={adapter('p', task)}")


@pytest.mark.parametrize(
    "text", ["/nowhere/at/all", "./missing", "a b", "p=/nowhere", "one/two/three"]
)
def test_parts_that_mean_nothing_are_refused(text):
    with pytest.raises(ConfigError, match="SOFTHUB_PROMPTS"):
        parse_sources(text)


def test_two_prompts_of_one_name_are_refused(adapter, tmp_path):
    folder = adapter("mood")
    with pytest.raises(ConfigError, match="two prompts named 'mood'"):
        parse_sources(f"{folder},mood={folder}")
    with pytest.raises(ConfigError, match="contains no adapter"):
        parse_sources(str(tmp_path))


def test_a_missing_lock_file_is_an_error_at_start(prompts_of, tmp_path):
    with pytest.raises(HubError, match="softhub lock"):
        prompts_of(str(tmp_path / "softhub.lock"))


def test_patterns_allow_names_of_the_hub_and_nothing_else():
    sources = parse_sources("me/*, you/mood@v2")
    assert all(map(sources.allows, ["me/mood", "me/mood@v3", "you/mood@v2"]))
    names = ["you/mood", "you/mood@v3", "me/../you", "/etc/me", "mood", "me/a/b", "../me/x"]
    assert not any(map(sources.allows, names))
    with pytest.raises(PromptNotLoaded):
        sources.pull("you/mood", Hub())


def test_a_path_is_loaded_only_as_a_folder_or_an_allowed_name(prompts_of, adapter, tmp_path):
    prompts = prompts_of("me/*")
    asyncio.run(prompts.load_from("p", str(adapter("p"))))
    assert prompts.names == ("p",)
    with pytest.raises(PromptNotLoaded):
        asyncio.run(prompts.load_from("q", str(Path(tmp_path) / "missing")))
