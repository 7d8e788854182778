"""A server under other people's requests: keys, limits, reloads, clients that leave, shutdown."""

import base64
import hashlib
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from softhub.hub import Hub
from softhub.serving.keys import Keys
from softhub.serving.metrics import MOST_LABELS
from softhub.serving.request_log import JsonFormatter
from tests.prompts import MOOD, SUMMARY, TEXTS, TOPIC, soft_prompt
from tests.serving.server import SlowModel, joined

KEY, ADMIN = "k" * 24, "a" * 24


def keys(*plain):
    return Keys(hashlib.sha256(each.encode()).digest() for each in plain)


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


# --- keys ---


def test_without_a_key_there_is_no_answer_and_with_one_there_is(serve):
    server = serve(keys=keys("other" * 5, KEY))
    body = {"model": "mood", "input": "x"}
    basic = base64.b64encode(f"me:{KEY}".encode()).decode()
    for headers, status in [
        ({}, 401),
        (bearer("x" * 24), 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": KEY}, 401),
        ({"Authorization": "Basic !!!"}, 401),
        (bearer(KEY), 200),
        ({"Authorization": f"Basic {basic}"}, 200),
    ]:
        answer = server.http.post("/v1/classify", json=body, headers=headers)
        assert answer.status_code == status, (headers, answer.text)
    assert server.http.get("/v1/models").json()["error"]["code"] == "invalid_api_key"
    assert server.http.get("/metrics").status_code == 401
    assert server.http.get("/health").status_code == 200
    assert server.http.get("/ready").json()["status"] == "ready"


# --- batches ---


def test_requests_that_arrive_together_are_one_mixed_batch(serve, monkeypatch):
    server = serve()
    sizes, predict = [], server.model.predict_batch
    slow = SlowModel(monkeypatch, server.model)

    def watched(requests, **options):
        sizes.append(len(requests))
        return predict(requests, **options)

    server.model.predict_batch = watched
    names = ["mood", "topic", "mood", "topic", "mood"]
    texts = [f"number {number}" for number in range(5)]  # of one length
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(server.post, "/v1/classify", model="mood", input="first")
        assert slow.entered.wait(60)
        found = [
            pool.submit(server.post, "/v1/classify", model=name, input=text)
            for name, text in zip(names, texts, strict=True)
        ]
        while server.engine.state().waiting < len(texts):
            time.sleep(0.005)
        slow.gate.set()
        first.result()
        labels = [each.result().json()["data"][0]["label"] for each in found]
    assert sizes == [1, 5]
    assert labels == [each.label for each in server.model.predict(texts, prompt=names)]


def test_many_clients_of_all_routes_get_the_answers_of_the_model_alone(serve):
    server = serve(batch_size=4)
    expected = {
        name: [each.label for each in server.model.predict(TEXTS, prompt=name)]
        for name in ("mood", "topic")
    }
    texts = server.model.generate(TEXTS, prompt="summary", max_new_tokens=12)
    wrong = []

    def work(start):
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for step in range(8):
                index = (start + step) % len(TEXTS)
                if (start + step) % 3 == 0:
                    body = {"model": "summary", "prompt": TEXTS[index], "max_tokens": 12}
                    body["stream"] = step % 2 == 0
                    answer = http.post("/v1/completions", json=body)
                    if body["stream"]:
                        found = joined(answer.text)
                    else:
                        found = answer.json()["choices"][0]["text"]
                    right = texts[index]
                else:
                    name = ("mood", "topic")[step % 2]
                    body = {"model": name, "input": TEXTS[index]}
                    found = http.post("/v1/classify", json=body).json()["data"][0]["label"]
                    right = expected[name][index]
                if found != right:
                    wrong.append((body, found, right))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- loading while it runs ---


def load(server, name, path, key=ADMIN):
    body = {"prompt_name": name, "prompt_path": str(path)}
    headers = {**bearer(key), "content-type": "application/json"}
    return server.http.post("/v1/load_prompt_adapter", content=json.dumps(body), headers=headers)


def test_prompts_are_loaded_and_unloaded_by_administrators_only(serve, adapter):
    server = serve(keys=keys(KEY), admin_keys=keys(ADMIN))
    folder = adapter("new", 4, MOOD, seed=5)
    assert load(server, "new", folder, key=KEY).status_code == 403
    assert load(server, "new", folder).json()["status"] == "loaded"
    answer = server.http.post(
        "/v1/classify", json={"model": "new", "input": TEXTS}, headers=bearer(KEY)
    )
    expected = server.model.predict(TEXTS, prompt="new")
    assert [row["label"] for row in answer.json()["data"]] == [each.label for each in expected]
    gone = {"prompt_name": "new"}
    for status in (200, 404):
        answer = server.http.post("/v1/unload_prompt_adapter", json=gone, headers=bearer(ADMIN))
        assert answer.status_code == status
    for name, path, status in [
        ("base", folder, 400),
        ("../x", folder, 400),
        ("new", folder.parent / "none", 400),
        ("new", "me/none", 404),
        ("new", folder.parent, 400),
        ("new", "x" * 5000, 400),
        ("new", "\ud800", 400),
        (server.engine.base_name, folder, 400),
    ]:
        assert load(server, name, path).status_code == status, (name, path)


def test_a_request_under_way_finishes_on_the_revision_it_was_accepted_with(
    serve, adapter, monkeypatch
):
    """Queued, half generated and streamed requests alike; later ones get the new revision."""
    server = serve(admin_keys=keys(ADMIN))
    old, new = adapter("old", 5, SUMMARY, seed=11), adapter("new", 7, SUMMARY, seed=12)
    assert load(server, "live", old).status_code == 200
    server.model.load_prompt(old, name="old")
    server.model.load_prompt(new, name="new")
    options = {"max_new_tokens": 20}
    expected = {
        name: server.model.generate(TEXTS, prompt=name, **options) for name in ("old", "new")
    }
    assert expected["old"] != expected["new"]
    slow = SlowModel(monkeypatch, server.model)
    body = {"model": "live", "prompt": TEXTS, "max_tokens": 20}
    with ThreadPoolExecutor(8) as pool:
        before = [pool.submit(server.post, "/v1/completions", **body)]
        assert slow.entered.wait(60)
        before.append(pool.submit(server.post, "/v1/completions", **body))
        while server.engine.state().waiting < len(TEXTS):
            time.sleep(0.005)
        assert load(server, "live", new).status_code == 200
        after = pool.submit(server.post, "/v1/completions", **body)
        while server.engine.state().waiting < 2 * len(TEXTS):
            time.sleep(0.005)
        slow.gate.set()
        for each in before:
            assert [c["text"] for c in each.result().json()["choices"]] == expected["old"]
        assert [c["text"] for c in after.result().json()["choices"]] == expected["new"]


def test_reloads_under_load_never_mix_two_revisions(serve, adapter):
    server = serve(admin_keys=keys(ADMIN), batch_size=4)
    folders = [adapter(f"v{i}", 4 + i, TOPIC, seed=20 + i) for i in range(3)]
    expected = []
    for index, folder in enumerate(folders):
        server.model.load_prompt(folder, name=f"v{index}")
        found = server.model.predict(TEXTS, prompt=f"v{index}")
        expected.append([tuple(round(p, 3) for p in each.probabilities.values()) for each in found])
    load(server, "live", folders[0])
    done, mixed = threading.Event(), []

    def ask():
        with httpx.Client(base_url=server.url, timeout=60) as http:
            while not done.is_set():
                body = {"model": "live", "input": TEXTS}
                rows = http.post("/v1/classify", json=body).json()["data"]
                found = [tuple(round(p, 3) for p in r["probabilities"].values()) for r in rows]
                if found not in expected:
                    mixed.append(found)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(30):
        assert load(server, "live", folders[turn % 3]).status_code == 200
    done.set()
    for thread in threads:
        thread.join()
    assert not mixed


# --- adapters of a hub ---


def test_an_allowed_adapter_of_the_hub_is_pulled_on_first_use(serve, adapter):
    hub = Hub()
    hub.push(adapter("one", 5, MOOD, seed=1), "me/mood", tags=["v1"])
    hub.push(adapter("two", 5, MOOD, seed=2), "me/mood")
    hub.push(adapter("secret", 5, MOOD, seed=3), "other/mood")
    hub.push(adapter("foreign", 5, MOOD, seed=4, kind="qwen3"), "me/foreign")
    server = serve(hub=hub, allow=["me/*"])

    def scores(name):
        answer = server.post("/v1/classify", model=name, input=TEXTS[0])
        return answer.status_code, answer.json().get("data", [{}])[0].get("probabilities")

    for name, seed in [("me/mood", 2), ("me/mood@v1", 1)]:
        server.model.load_prompt(soft_prompt(server.model.base, 5, MOOD, seed=seed), name="x")
        expected = server.model.predict(TEXTS[:1], prompt="x")[0].probabilities
        status, found = scores(name)
        assert status == 200 and found == pytest.approx(dict(expected), abs=1e-4)
    assert "me/mood@v1" in server.model.prompts
    assert scores("other/mood")[0] == 404
    assert scores("me/none")[0] == 404
    assert scores("me/mood@v9")[0] == 404
    assert scores("me/foreign")[0] == 400
    assert scores("me/mood@" + "x" * 5000)[0] == 404
    assert scores("me/../other")[0] == 404


def test_a_folder_of_an_allowed_name_is_not_read_in_place_of_the_hub(
    serve, adapter, tmp_path, monkeypatch
):
    folder = adapter("me/mood", 5, MOOD, seed=1)
    monkeypatch.chdir(folder.parent.parent)
    hub = Hub()
    server = serve(hub=hub, allow=["me/*"])
    assert server.post("/v1/classify", model="me/mood", input="x").status_code == 404
    hub.push(adapter("two", 7, MOOD, seed=2), "me/mood")
    assert server.post("/v1/classify", model="me/mood", input="x").status_code == 200
    assert server.model.find("me/mood").length == 7


def test_pulled_adapters_leave_when_others_were_used_more_recently(serve, adapter):
    from softhub.serving.names import ServedNames

    hub = Hub()
    for index in range(4):
        hub.push(adapter(f"p{index}", 3, MOOD, seed=index), f"me/p{index}")
    server = serve()
    names = ServedNames(server.engine, hub=hub, allow=["me/*"], most=2)
    import asyncio

    async def use():
        for index in (0, 1, 0, 2, 3):
            await names.find(f"me/p{index}")

    asyncio.run(use())
    assert [name for name in server.model.prompts if "/" in name] == ["me/p2", "me/p3"]


# --- clients that leave ---


def test_the_rows_of_a_client_that_leaves_are_given_up(serve, monkeypatch):
    server = serve()
    slow = SlowModel(monkeypatch, server.model, free=20)  # enough for a first line
    body = {"model": "summary", "prompt": TEXTS, "max_tokens": 400, "stream": True}
    with httpx.Client(base_url=server.url, timeout=60) as http:
        with http.stream("POST", "/v1/completions", json=body) as answer:
            next(answer.iter_lines())
            assert server.engine.state().running
        slow.gate.set()
        deadline = time.monotonic() + 30
        while server.engine.state().running and time.monotonic() < deadline:
            time.sleep(0.01)
    assert server.engine.state().running == 0
    tokens = server.http.get("/metrics").text
    assert 'softhub_tokens_total{kind="completion",model="summary"}' in tokens
    counted = float(tokens.split('kind="completion",model="summary"} ')[1].split()[0])
    assert counted < 5 * 400


def test_a_client_that_waits_for_a_whole_answer_and_leaves_is_noticed(serve, monkeypatch):
    server = serve()
    slow = SlowModel(monkeypatch, server.model)
    body = json.dumps({"model": "summary", "prompt": TEXTS, "max_tokens": 400}).encode()
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as raw:
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Length: {len(body)}\r\n"
        raw.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        assert slow.entered.wait(60)
    slow.gate.set()
    deadline = time.monotonic() + 30
    while server.engine.state().running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.engine.state().running == 0
    assert server.post("/v1/classify", model="mood", input="x").status_code == 200


def test_a_slow_reader_holds_up_nobody(serve):
    server = serve()
    body = {"model": "summary", "prompt": TEXTS, "max_tokens": 300, "stream": True}
    with server.http.stream("POST", "/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert server.post("/v1/classify", model="mood", input="x").status_code == 200
        text = "\n".join(lines)
    assert text.rstrip().endswith("[DONE]")


# --- shutdown ---


def test_shutdown_finishes_what_was_accepted(serve, monkeypatch):
    server = serve()
    slow = SlowModel(monkeypatch, server.model)
    expected = server_texts = None
    with ThreadPoolExecutor(4) as pool:
        body = {"model": "summary", "prompt": TEXTS, "max_tokens": 20}
        whole = pool.submit(server.post, "/v1/completions", **body)
        assert slow.entered.wait(60)
        streamed = pool.submit(server.post, "/v1/completions", **body, stream=True)
        while server.engine.state().waiting < len(TEXTS):
            time.sleep(0.005)
        server.uvicorn.should_exit = True
        slow.gate.set()
        server_texts = [choice["text"] for choice in whole.result().json()["choices"]]
        events = streamed.result().text
    server.thread.join(60)
    assert not server.thread.is_alive()
    expected = server.model.generate(TEXTS, prompt="summary", max_new_tokens=20)
    assert server_texts == expected
    assert "[DONE]" in events
    assert not server.engine.state().ready
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health")


# --- what an operator sees ---


def test_metrics_count_requests_tokens_and_prompts_within_bounds(serve, loaded):
    server = serve()
    for index in range(MOST_LABELS + 20):
        prompt = soft_prompt(loaded("llama"), 2, MOOD, seed=index)
        server.model.load_prompt(prompt, name=f"p{index:03}")
    for index in range(0, MOST_LABELS + 20, 10):
        server.post("/v1/classify", model=f"p{index:03}", input="x")
    server.post("/v1/classify", model="nothing", input="x")
    server.http.get("/some/where/else")
    text = server.http.get("/metrics").text
    assert 'softhub_requests_total{route="/v1/classify",status="200"} 12.0' in text
    assert 'softhub_requests_total{route="/v1/classify",status="404"} 1.0' in text
    assert 'softhub_requests_total{route="(other)",status="404"} 1.0' in text
    assert 'softhub_prefix_misses_total{prompt="p000"} 1.0' in text
    assert text.count("softhub_prefix_misses_total{") == MOST_LABELS + 1
    assert f"softhub_loaded_prompts {MOST_LABELS + 23}.0" in text
    assert "nothing" not in text


def test_log_lines_are_json_without_texts(serve, caplog):
    server = serve(keys=keys(KEY))
    secret = "a very private sentence"
    with caplog.at_level(logging.INFO, logger="softhub.serving"):
        answer = server.http.post(
            "/v1/classify", json={"model": "mood", "input": secret}, headers=bearer(KEY)
        )
        # The line is written after the answer was sent.
        deadline, found = time.monotonic() + 30, []
        while not found and time.monotonic() < deadline:
            time.sleep(0.01)
            found = [record for record in caplog.records if record.name == "softhub.serving"]
    line = JsonFormatter().format(found[-1])
    fields = json.loads(line)
    assert fields["route"] == "/v1/classify" and fields["status"] == 200
    assert fields["model"] == "mood" and fields["rows"] == 1 and fields["prompt_tokens"] > 5
    assert fields["request"] == answer.headers["x-request-id"]
    assert secret not in line and KEY not in line


def test_a_failure_of_the_server_says_nothing_about_its_inside(serve, monkeypatch, caplog):
    server = serve()

    def fail(*args, **kwargs):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(server.model.base.model, "forward", fail)
    for path, body in [
        ("/v1/completions", {"model": "summary", "prompt": "x"}),
        ("/v1/classify", {"model": "mood", "input": ["x", "y"]}),
    ]:
        answer = server.http.post(path, json=body)
        assert answer.status_code == 500
        assert "/secret/path" not in answer.text and answer.json()["error"]["type"]
    assert "/secret/path" in caplog.text  # the log has the reason
    monkeypatch.undo()
    assert server.post("/v1/classify", model="mood", input="x").status_code == 200
