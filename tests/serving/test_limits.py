"""What one request may ask of a server, and what happens to those that ask for more."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from softhub.adapter import layout
from softhub.hub import Hub
from softhub.serving.limits import Limits, rows_of_labels
from softhub.tasks import Verbalizer
from tests.prompts import MOOD, SUMMARY, TEXTS, soft_prompt
from tests.serving.server import SlowModel, joined


def test_a_large_body_is_refused_before_it_is_read(serve):
    server = serve(limits=Limits(body_bytes=1000))
    body = json.dumps({"model": "mood", "input": "x" * 2000}).encode()
    headers = {"content-type": "application/json"}

    def pieces():
        yield body[:600]
        yield body[600:]

    for content in (body, pieces()):
        answer = server.http.post("/v1/classify", content=content, headers=headers)
        assert answer.status_code == 413
        assert "1000 bytes" in answer.json()["error"]["message"]
    assert server.post("/v1/classify", model="mood", input="x" * 200).status_code == 200


def test_what_a_request_leaves_out_is_within_the_limits_too(serve, loaded):
    """The default of the options, and the longer text that a prompt's task asks for."""
    server = serve(limits=Limits(new_tokens=4))
    long = replace(SUMMARY, generation={"max_new_tokens": 400})
    server.model.load_prompt(soft_prompt(loaded("llama"), 4, long), name="long")
    for name, prompt in [("base", None), ("long", "long"), ("summary", "summary")]:
        answer = server.post("/v1/completions", model=name, prompt=TEXTS).json()
        expected = server.model.generate(TEXTS, prompt=prompt, max_new_tokens=4)
        assert [choice["text"] for choice in answer["choices"]] == expected
        streamed = server.post("/v1/completions", model=name, prompt=TEXTS[0], stream=True)
        assert joined(streamed.text) == expected[0]
    asked = server.post("/v1/completions", model="long", prompt="x", max_tokens=5)
    assert asked.status_code == 400 and asked.json()["error"]["param"] == "max_tokens"


def test_the_beams_of_a_task_count_as_rows(serve, loaded):
    server = serve(limits=Limits(rows=6))
    beams = replace(SUMMARY, generation={"max_new_tokens": 3, "num_beams": 4})
    server.model.load_prompt(soft_prompt(loaded("llama"), 4, beams), name="beams")
    assert server.post("/v1/completions", model="beams", prompt="x").status_code == 200
    refused = server.post("/v1/completions", model="beams", prompt=["x", "y"])
    assert refused.status_code == 400
    message = refused.json()["error"]["message"]
    assert "8 rows, 4 for each text" in message and "limit is 6" in message


def test_a_full_queue_answers_429_and_loses_nothing(serve, monkeypatch):
    server = serve(queue=3)
    slow = SlowModel(monkeypatch, server.model)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(server.post, "/v1/classify", model="mood", input=TEXTS[0])
        assert slow.entered.wait(60)
        accepted = []
        for text in TEXTS[1:4]:
            accepted.append(pool.submit(server.post, "/v1/classify", model="mood", input=text))
            while server.engine.state().waiting < len(accepted):
                time.sleep(0.005)
        refused = server.post("/v1/completions", model="summary", prompt="x")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "queue_full"
        slow.gate.set()
        labels = [each.result().json()["data"][0]["label"] for each in [first, *accepted]]
    assert labels == [each.label for each in server.model.predict(TEXTS[:4], prompt="mood")]


def test_a_request_that_takes_too_long_ends(serve, monkeypatch):
    server = serve(limits=Limits(seconds=1))
    slow = SlowModel(monkeypatch, server.model)
    answer = server.post("/v1/classify", model="mood", input="x")
    assert answer.status_code == 504
    assert answer.json()["error"]["type"] == "timeout_error"
    slow.gate.set()
    assert server.post("/v1/classify", model="mood", input="x").status_code == 200


@pytest.mark.parametrize(("kind", "beams"), [("llama", 3), ("t5", 1), ("t5", 3)])
def test_a_text_that_is_not_streamed_by_tokens_ends_with_its_request(
    kind, beams, serve, loaded, monkeypatch
):
    """Beams, and the rows of a base without cached prefixes, run in one call of `generate`."""
    server = serve(kind, limits=Limits(seconds=1))
    task = replace(SUMMARY, generation={"num_beams": beams})
    endless = [server.model.base.tokenizer.eos_token_id]
    monkeypatch.setattr(server.model.base.model.generation_config, "suppress_tokens", endless)
    server.model.load_prompt(soft_prompt(loaded(kind), 4, task), name="long")
    body = {"model": "long", "prompt": TEXTS[:2], "max_tokens": 300}
    slow = SlowModel(monkeypatch, server.model, free=3)
    assert server.post("/v1/completions", **body).status_code == 504
    slow.gate.set()
    assert server.post("/v1/classify", model="mood", input="x").status_code == 200
    assert slow.passes < 20


def test_the_engine_goes_on_after_the_base_could_not_be_asked(serve, monkeypatch):
    server = serve()

    def exhausted(*_):
        raise torch.OutOfMemoryError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(server.model.base.capabilities, "rows", exhausted)
        assert server.post("/v1/classify", model="mood", input="x").status_code >= 500
    assert server.post("/v1/classify", model="mood", input="x").status_code == 200


def words_of(count, letters=1):
    words = {f"l{n}": f" {n:0{letters}}" for n in range(count)}
    return replace(MOOD, verbalizer=Verbalizer.from_mapping(words))


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        (MOOD, 1),
        (SUMMARY, 1),
        (words_of(128), 1),
        (words_of(129), 2),
        (words_of(200), 2),
        (words_of(2_000), 16),
        (words_of(40, letters=400), 4),  # few words of many tokens
        (replace(words_of(200), multilabel=True), 4),
    ],
)
def test_a_text_counts_as_more_rows_where_many_words_are_scored_after_it(task, rows):
    assert rows_of_labels(task) == rows


def test_the_label_words_of_a_task_count_as_rows(serve, loaded):
    """So that one request for a prompt of a stranger does not stop the server for all others."""
    server = serve(limits=Limits(rows=6))
    server.model.load_prompt(soft_prompt(loaded("llama"), 4, words_of(300)), name="many")
    assert server.post("/v1/classify", model="many", input=TEXTS[:2]).status_code == 200
    refused = server.post("/v1/classify", model="many", input=TEXTS[:3])
    assert refused.status_code == 400
    message = refused.json()["error"]["message"]
    assert "9 rows, 3 for each text (the label words" in message and "limit is 6" in message


def test_a_single_text_is_classified_however_many_labels_there_are(serve, loaded):
    server = serve(limits=Limits(rows=1))
    server.model.load_prompt(soft_prompt(loaded("llama"), 4, words_of(300)), name="many")
    assert server.post("/v1/classify", model="many", input=TEXTS[0]).status_code == 200


def test_an_adapter_with_too_many_label_words_is_refused(serve, adapter):
    folder = adapter("many", 4, MOOD)
    words = [{"label": "a", "words": [f" {n}" for n in range(9_000)]}]
    record = json.loads((folder / layout.MANIFEST).read_bytes())
    record["task"]["verbalizer"] = [*words, {"label": "b", "words": [" no"]}]
    (folder / layout.MANIFEST).write_text(json.dumps(record))
    hub = Hub()
    hub.push(folder, "me/many")
    server = serve(hub=hub, allow=["me/*"])
    refused = server.post("/v1/classify", model="me/many", input="x")
    assert refused.status_code == 400
    assert "9001 words; expected at most 2000" in refused.json()["error"]["message"]
