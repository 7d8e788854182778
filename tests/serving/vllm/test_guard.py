"""Bodies of requests: no tensor gets through, and everything else does unchanged."""

import asyncio
import json

import pytest

from softhub.serving.vllm import guard
from softhub.serving.vllm.guard import BodyGuard, forbidden_field

TENSORS = [
    '{"model": "m", "prompt_embeds": "AAAA"}',
    '{"model": "m", "prompt\\u005fembeds": "AAAA"}',
    '{"prompt_embeds": "AAAA", "prompt_embeds": null}',
    '{"messages": [{"content": [{"type": "prompt_embeds", "prompt_embeds": "AAAA"}]}]}',
    '{"messages": [{"content": [{"type": "image_embeds", "x": {"a": "AAAA"}}]}]}',
    '{"messages": [{"content": [{"audio_embeds": ["AAAA"]}]}]}',
    '{"features": {"kwargs_data": {"image": ["AAAA"]}}}',
    '{"features": {"mm_metadata": {"image": ["AAAA"]}}}',
    '{"requests": [[{"prompt_embeds": []}]]}',
    '{"prompt": "x", "cache_salt": "softhub:0123"}',
    '{"seed": ' + "9" * 5000 + ', "prompt_embeds": "AAAA"}',
]
PLAIN = [
    '{"model": "m", "prompt": "What are prompt_embeds?"}',
    '{"messages": [{"role": "user", "content": "prompt_embeds"}], "cache_salt": "tenant"}',
    '{"prompt_embeds": null, "prompt": "x"}',
    '{"input": {"type": "review", "text": "embeds"}}',
    "not JSON",
    "",
]


def send(body, *, headers=(), method="POST", chunk=7, then=()):
    """Send a body in small pieces; return the status, the answer and what the application read."""
    read = []

    async def app(scope, receive, send):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                break
            read.append(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})

    pieces = [body[i : i + chunk] for i in range(0, len(body), chunk)] or [b""]
    messages = [
        {"type": "http.request", "body": piece, "more_body": i + 1 < len(pieces)}
        for i, piece in enumerate(pieces)
    ]
    waiting, sent = [*messages, *then], []

    async def receive():
        return waiting.pop(0)

    async def record(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "headers": list(headers)}
    asyncio.run(BodyGuard(app)(scope, receive, record))
    return sent[0]["status"], sent[1]["body"], b"".join(read)


@pytest.mark.parametrize("body", TENSORS)
def test_tensors_and_reserved_salts_are_refused_by_name(body):
    status, answer, read = send(body.encode())
    assert (status, read) == (400, b"")
    error = json.loads(answer)["error"]
    assert error["param"] in error["message"]
    assert "takes no tensors from requests" in error["message"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_an_encoding_that_json_allows_hides_nothing(encoding):
    assert forbidden_field(TENSORS[0].encode(encoding)) == "prompt_embeds"


def test_deep_nesting_hides_nothing():
    depth = 200_000
    body = '{"a":' * depth + '{"prompt_embeds": "AAAA"}' + "}" * depth
    assert forbidden_field(body.encode()) is not None


@pytest.mark.parametrize("body", PLAIN)
def test_everything_else_arrives_as_it_was_sent(body):
    assert send(body.encode()) == (200, b"fine", body.encode())


def test_what_comes_after_the_body_arrives_too():
    async def app(scope, receive, send):
        kinds = [(await receive())["type"], (await receive())["type"]]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": ",".join(kinds).encode()})

    messages = [
        {"type": "http.request", "body": b"{}", "more_body": False},
        {"type": "http.disconnect"},
    ]
    sent = []

    async def receive():
        return messages.pop(0)

    async def record(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "headers": []}
    asyncio.run(BodyGuard(app)(scope, receive, record))
    assert sent[1]["body"] == b"http.request,http.disconnect"


def test_a_body_above_the_limit_is_refused_before_all_of_it_was_read(monkeypatch):
    monkeypatch.setattr(guard, "MOST_BYTES", 10)
    status, _, read = send(b"x" * 100)
    assert (status, read) == (413, b"")


def test_uploads_of_files_and_requests_without_a_body_pass():
    kind = (b"content-type", b"multipart/form-data; boundary=x")
    assert send(b"--x prompt_embeds", headers=[kind])[0] == 200
    # Some routes of vLLM read JSON whatever the client says it is.
    assert send(TENSORS[0].encode(), headers=[kind])[0] == 400
    assert send(b"", method="GET")[0] == 200
