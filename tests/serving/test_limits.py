"""What one request may ask of a server, and what happens to those that ask for more."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
import torch

from softhub.adapter import layout
from softhub.hub import Hub
from softhub.model.encoding import Encoder
from softhub.serving.generation_routes import EventStream
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


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("completions", {"model": "base", "prompt": ["x"] * 4}),
        ("completions", {"model": "base", "prompt": "x", "n": 4, "temperature": 1}),
        ("classify", {"model": "mood", "input": ["x"] * 4}),
    ],
)
def test_more_rows_than_the_queue_holds_are_refused_for_good(path, body, serve):
    refused = serve(queue=3).post(f"/v1/{path}", **body)
    assert refused.status_code == 400 and "retry-after" not in refused.headers
    message = refused.json()["error"]["message"]
    assert "4 rows" in message and "holds 3" in message and "--queue" in message


def test_rows_to_classify_are_counted_until_they_are_answered(serve, monkeypatch):
    """Also those from which the next batch is chosen, and those of the batch that runs."""
    server = serve(batch_size=2, queue=5)
    slow = SlowModel(monkeypatch, server.model)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(server.post, "/v1/classify", model="mood", input=TEXTS)
        assert slow.entered.wait(60)
        state = server.engine.state()
        assert state.waiting + state.running == len(TEXTS)
        assert server.http.get("/ready").json()["waiting"] == state.waiting
        metrics = server.http.get("/metrics").text
        assert f"softhub_queue_rows {float(state.waiting)}" in metrics
        assert f"softhub_running_rows {float(state.running)}" in metrics
        assert server.post("/v1/classify", model="mood", input=["x"] * 3).status_code == 429
        slow.gate.set()
        assert first.result().status_code == 200
    while server.engine.state().running:
        time.sleep(0.005)
    assert server.engine.state().waiting == 0


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


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ([str(n) for n in range(17)], "stop has 17 texts; expected at most 16"),
        (["x" * 257], "a text of 257 characters; expected at most 256"),
    ],
)
def test_an_adapter_with_too_many_or_too_long_stop_strings_is_refused(
    stop, message, serve, adapter
):
    folder = adapter("stops", 4, SUMMARY)
    record = json.loads((folder / layout.MANIFEST).read_bytes())
    record["task"]["generation"] = {"stop": stop}
    (folder / layout.MANIFEST).write_text(json.dumps(record))
    hub = Hub()
    hub.push(folder, "me/stops")
    refused = serve(hub=hub, allow=["me/*"]).post("/v1/completions", model="me/stops", prompt="x")
    assert refused.status_code == 400 and message in refused.json()["error"]["message"]


def test_a_stream_that_nobody_reads_ends_after_the_time_limit():
    """The client neither reads nor leaves."""
    closed = []

    async def events():
        try:
            while True:
                yield b"data: x\n\n"
        finally:
            closed.append(True)

    async def never(*_):
        await asyncio.Event().wait()

    async def full(message):  # the buffers hold the beginning
        sent.append(message)
        if len(sent) > 3:
            await never()

    sent = []
    stream = EventStream(events(), time.monotonic() + 1)
    asyncio.run(asyncio.wait_for(stream({"type": "http"}, never, full), 60))
    assert len(sent) == 4 and closed == [True]


# --- tokenizing ---


class WatchedEncoder:
    """Records the texts that are tokenized, which wait until they may go on."""

    def __init__(self, monkeypatch):
        self.texts = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        encode = Encoder._template_ids

        def waiting(encoder, template, row):
            self.texts.append(row["text"])
            self.entered.set()
            assert self.gate.wait(60)
            return encode(encoder, template, row)

        monkeypatch.setattr(Encoder, "_template_ids", waiting)


def test_each_text_is_tokenized_once_for_all_its_answers(serve, monkeypatch):
    server = serve()
    watched = WatchedEncoder(monkeypatch)
    watched.gate.set()
    sampled = {"n": 3, "temperature": 1, "max_tokens": 2}
    answer = server.post("/v1/completions", model="summary", prompt=TEXTS[:2], **sampled)
    assert len(answer.json()["choices"]) == 6
    assert watched.texts == TEXTS[:2]


def test_a_text_that_is_too_long_is_refused_after_one_look(serve, monkeypatch):
    """No search for the part of it that would fit, and no second look for a second answer."""
    server = serve()
    watched = WatchedEncoder(monkeypatch)
    watched.gate.set()
    for name in ("base", "summary"):
        watched.texts.clear()
        sampled = {"n": 9, "temperature": 1}
        refused = server.post("/v1/completions", model=name, prompt="word " * 900, **sampled)
        assert refused.status_code == 400 and len(watched.texts) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_the_time_limit_covers_tokenizing(stream, serve, monkeypatch):
    server = serve(limits=Limits(seconds=1))
    watched = WatchedEncoder(monkeypatch)
    body = {"model": "base", "prompt": TEXTS, "stream": stream}
    assert server.post("/v1/completions", **body).status_code == 504
    watched.gate.set()
    while "x" not in watched.texts:
        server.post("/v1/completions", model="base", prompt="x")
    assert watched.texts[:2] == [TEXTS[0], "x"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_texts_of_a_client_that_has_left_are_not_tokenized(stream, serve, monkeypatch):
    server = serve()
    watched = WatchedEncoder(monkeypatch)
    body = {"model": "base", "prompt": TEXTS, "stream": stream}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/completions", json=body, timeout=1)
    while "499" not in server.http.get("/metrics").text:
        time.sleep(0.005)
    watched.gate.set()
    while "x" not in watched.texts:
        server.post("/v1/completions", model="base", prompt="x")
    assert watched.texts[:2] == [TEXTS[0], "x"]
