"""A real vLLM server with the plug-in, against plain transformers and PromptModel."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from softhub.inference.engine import PromptModel
from softhub.model.loading import load_base
from tests.prompts import MOOD, SUMMARY, TEXTS, TOPIC, soft_prompt
from tests.tiny import build_tokenizer, llama_like

pytest.importorskip("vllm", reason="vLLM is not installed")
from tests.serving.vllm.server import ADMIN_KEY, Client, running_server

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
PLAIN = {"plain": (None, 32, 4), "long": (None, 70, 5)}  # task, virtual tokens, seed
TASKS = {"mood": (MOOD, 5, 0), "topic": (TOPIC, 12, 1), "summary": (SUMMARY, 9, 2)}
MESSAGES = [{"role": "user", "content": "Is the screen great?"}]
TOKENS = 8
PAGE = Path(__file__).parents[3] / "docs" / "vllm.md"


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def base(work):
    """A tiny Llama with heads of 32, the narrowest that vLLM's CPU attention takes."""
    torch.manual_seed(0)
    changes = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = LlamaConfig(**llama_like(**changes, head_dim=32))
    tokenizer = build_tokenizer()
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    LlamaForCausalLM(config).save_pretrained(work / "base")
    tokenizer.save_pretrained(work / "base")
    return load_base(work / "base", name="example/tiny-llama")


@pytest.fixture(scope="module")
def saved(base, work):
    """Return `saved(name, task, tokens, seed)`: an adapter folder."""

    def make(name, task=None, tokens=5, seed=0, parent="adapters"):
        prompt = soft_prompt(base, tokens, task, seed=seed)
        return prompt.save_pretrained(work / parent / name)

    return make


@pytest.fixture(scope="module")
def model(base, saved) -> PromptModel:
    model = PromptModel(base)
    for name, (task, tokens, seed) in {**PLAIN, **TASKS}.items():
        model.load_prompt(saved(name, task, tokens, seed), name=name)
    return model


@pytest.fixture(scope="module")
def client(model, work) -> Iterator[Client]:
    log = work / "vllm.log"
    with running_server(work / "base", [str(work / "adapters")], log) as client:
        yield client


def greedy(base, vectors, ids, tokens=TOKENS):
    """Greedy tokens by the stock model on the assembled row, and the least margin of any."""
    embedded = base.embed(torch.tensor(ids))  # [T, H]
    row = embedded if vectors is None else torch.cat([vectors, embedded])
    made, margins = [], []
    with torch.no_grad():
        for _ in range(tokens):
            top = base.model(inputs_embeds=row[None]).logits[0, -1].topk(2)
            made.append(int(top.indices[0]))
            margins.append(float(top.values[0] - top.values[1]))
            if made[-1] == base.tokenizer.eos_token_id:
                break
            row = torch.cat([row, base.embed(torch.tensor(made[-1:]))])
    return made, min(margins)


def vectors_of(base, name):
    task, tokens, seed = {**PLAIN, **TASKS}[name]
    return soft_prompt(base, tokens, task, seed=seed).vectors


def assert_greedy(base, vectors, ids, answer, tokens=TOKENS):
    """The answer's tokens are the reference's, unless two tokens were a near tie (1e-3)."""
    expected, margin = greedy(base, vectors, ids, tokens)
    assert answer["token_ids"] == expected or margin < 1e-3, (answer, expected, margin)


def complete(client, name, text, **options):
    fields = {"max_tokens": TOKENS, "temperature": 0, "return_token_ids": True, **options}
    found = client.post("/v1/completions", model=name, prompt=text, **fields)
    assert found.status == 200, found.body
    assert found.body["model"] == name
    return found.body["choices"][0]


def test_prompts_are_models_with_their_base_as_parent(client):
    cards = {card["id"]: card for card in client.get("/v1/models")["data"]}
    assert set(cards) == {"base", *PLAIN, *TASKS}
    assert cards["base"]["parent"] is None
    assert all(cards[name]["parent"] == "base" for name in {**PLAIN, **TASKS})


def test_mixed_concurrent_completions_are_those_of_transformers(client, base, model):
    jobs = [(name, text) for text in TEXTS for name in (*PLAIN, "base")] * 2
    with ThreadPoolExecutor(len(jobs)) as pool:
        found = list(pool.map(lambda job: complete(client, *job), jobs))
    for (name, text), answer in zip(jobs, found, strict=True):
        ids = base.tokenizer(text)["input_ids"]
        assert_greedy(base, None if name == "base" else vectors_of(base, name), ids, answer)


def test_a_task_gives_its_template_and_its_options(client, base, model):
    for text in TEXTS:
        (expected,) = model.generate([text], prompt="summary")
        found = client.post("/v1/completions", model="summary", prompt=text)
        # Of a character that max_tokens cuts, vLLM returns nothing and transformers a mark.
        assert found.body["choices"][0]["text"] == expected.rstrip("\ufffd")
        assert found.body["usage"]["completion_tokens"] <= SUMMARY.generation["max_new_tokens"]


def test_a_chat_has_the_prompt_before_its_template(client, base, model):
    text = base.tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    ids = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    for name in (*PLAIN, "base"):
        fields = {"max_completion_tokens": TOKENS, "temperature": 0, "return_token_ids": True}
        found = client.post("/v1/chat/completions", model=name, messages=MESSAGES, **fields)
        assert found.status == 200, found.body
        vectors = None if name == "base" else vectors_of(base, name)
        assert_greedy(base, vectors, ids, found.body["choices"][0])


def test_streams_are_the_whole_answers(client, model):
    for name in PLAIN:
        whole = complete(client, name, TEXTS[0])["text"]
        options = {"max_tokens": TOKENS, "temperature": 0}
        events = client.stream("/v1/completions", model=name, prompt=TEXTS[0], **options)
        assert "".join(event["choices"][0]["text"] for event in events) == whole
        assert len(events) > 2 and all(event["model"] == name for event in events)
        found = client.post("/v1/chat/completions", model=name, messages=MESSAGES, **options)
        events = client.stream("/v1/chat/completions", model=name, messages=MESSAGES, **options)
        parts = [event["choices"][0]["delta"].get("content") or "" for event in events]
        assert "".join(parts) == (found.body["choices"][0]["message"]["content"] or "")


def test_log_probabilities_are_those_of_transformers(client, base, model):
    ids = base.tokenizer(TEXTS[1])["input_ids"]
    row = torch.cat([vectors_of(base, "plain"), base.embed(torch.tensor(ids))])[None]
    with torch.no_grad():
        expected = base.model(inputs_embeds=row).logits[0, -1].log_softmax(-1).topk(3).values
    found = complete(
        client, "plain", TEXTS[1], max_tokens=1, logprobs=3, return_tokens_as_token_ids=True
    )["logprobs"]
    values = sorted(found["top_logprobs"][0].values(), reverse=True)[:3]
    assert values == pytest.approx(expected.tolist(), abs=1e-3)


@pytest.mark.parametrize("name", ["mood", "topic"])
def test_classify_is_predict(client, model, name):
    expected = model.predict(TEXTS, prompt=name)
    found = client.post("/v1/classify", model=name, input=TEXTS)
    assert found.status == 200, found.body
    for entry, prediction in zip(found.body["data"], expected, strict=True):
        assert entry["label"] == prediction.label
        assert entry["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-3)
    abstained = client.post("/v1/classify", model=name, input=TEXTS[0], abstain_below=1.0)
    assert abstained.body["data"][0]["label"] is None


def test_score_is_the_probability_of_a_reference_text(client, model):
    targets = [" positive", " not good"]
    expected = model.target_logprobs(TEXTS[:2], targets, prompt="mood")
    found = client.post("/v1/score", model="mood", input=TEXTS[:2], target=targets)
    assert found.status == 200, found.body
    for entry, logprobs in zip(found.body["data"], expected, strict=True):
        assert entry["token_logprobs"] == pytest.approx(list(logprobs), abs=1e-3)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("completions", {"model": "nobody", "prompt": "x"}, 404, "does not exist"),
        ("classify", {"model": "nobody", "input": "x"}, 404, "GET /v1/models"),
        ("classify", {"model": "plain", "input": "x"}, 400, "no classification task"),
        ("classify", {"model": "mood", "input": []}, 400, "input"),
        ("classify", {"model": "mood", "input": "x", "inputs": "y"}, 400, "inputs"),
        ("score", {"model": "mood", "input": ["x"], "target": ["a", "b"]}, 400, "2 targets"),
        ("completions", {"model": "plain", "prompt": "x", "echo": True}, 400, "echo"),
        ("completions", {"model": "plain", "prompt": [[]]}, 400, "no tokens"),
        ("completions", {"model": "plain", "prompt": "x " * 4000}, 400, "shorten it"),
        ("completions", {"model": "base", "prompt_embeds": "AAAA"}, 400, "no tensors"),
        ("completions", {"model": "base", "prompt": "x", "cache_salt": "softhub:1"}, 400, "salt"),
        ("chat/completions", {"model": "mood", "messages": MESSAGES}, 400, "/v1/classify"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(client, path, body, status, words):
    found = client.post(f"/v1/{path}", **body)
    assert found.status == status
    assert words in found.body["error"]["message"]


def test_a_row_that_only_its_prompt_makes_too_long_is_refused(client):
    longest = client.get("/v1/models")["data"][0]["max_model_len"]
    options = {"max_tokens": 8, "temperature": 0}
    rows = [[7] * (longest - count) for count in (8 + 32, 8 + 31, 32)]
    fits, full, over = (
        client.post("/v1/completions", model="plain", prompt=row, **options) for row in rows
    )
    assert fits.status == 200, fits.body
    assert full.status == over.status == 400, (full.body, over.body)
    chat = [{"role": "user", "content": "Good. " * longest}]
    assert client.post("/v1/chat/completions", model="plain", messages=chat).status == 400
    assert complete(client, "plain", TEXTS[0])["token_ids"]  # the server goes on


def test_rows_of_equal_ids_do_not_share_blocks(client, base, model):
    """vllm#56655: the same ids, as a prompt's placeholders here and as tokens there."""
    ids = base.tokenizer(TEXTS[1])["input_ids"]
    for _ in range(2):  # the second time from a warm cache
        same_ids = complete(client, "base", [0] * 32 + ids)
        assert_greedy(base, None, [0] * 32 + ids, same_ids)
        assert_greedy(base, vectors_of(base, "plain"), ids, complete(client, "plain", ids))


def test_loads_require_the_key(client, saved):
    body = {"prompt_name": "new", "prompt_path": str(saved("new", parent="others"))}
    for key in (None, "a-wrong-key-of-length-24"):
        assert client.post("/v1/load_prompt_adapter", key=key, **body).status == 403
    assert client.post("/v1/load_prompt_adapter", key=ADMIN_KEY, **body).status == 200
    assert client.post("/v1/unload_prompt_adapter", key=ADMIN_KEY, prompt_name="new").status == 200
    again = client.post("/v1/unload_prompt_adapter", key=ADMIN_KEY, prompt_name="new")
    assert again.status == 404


def test_a_reload_under_load_mixes_nothing(client, base, saved):
    """Later requests get the new prompt, and no request gets any third answer."""
    folders = [saved(f"r{seed}", None, 40, seed, parent="others") for seed in (11, 12)]
    ids = base.tokenizer(TEXTS[3])["input_ids"]
    answers = [greedy(base, soft_prompt(base, 40, seed=seed).vectors, ids)[0] for seed in (11, 12)]
    assert answers[0] != answers[1]
    client.load("r", folders[0])
    stop, seen = threading.Event(), []

    def ask():
        while not stop.is_set():
            seen.append(complete(client, "r", ids)["token_ids"])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(1, 21):
        client.load("r", folders[turn % 2])
        assert complete(client, "r", ids)["token_ids"] == answers[turn % 2]
    stop.set()
    for thread in threads:
        thread.join()
    assert all(answer in answers for answer in seen) and len(seen) > 4


def test_the_pages_batch_job_gives_the_texts_of_prompt_model(model, work):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for there, here in (
        ("ORG/BASE-MODEL", str(work / "base")),
        ("prompts/summary", str(work / "adapters" / "summary")),
        ("block_size=32", "block_size=32, dtype='float32', enforce_eager=True"),
    ):
        assert there in code
        code = code.replace(there, here)
    (work / "job.py").write_text(code)
    pd.DataFrame({"text": TEXTS}).to_parquet(work / "articles.parquet")
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    command = [sys.executable, "job.py"]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-8000:]
    found = pd.read_parquet(work / "summaries.parquet")["summary"].tolist()
    expected = model.generate(TEXTS, prompt="summary")
    assert found == [text.rstrip("\ufffd") for text in expected]
