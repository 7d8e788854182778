"""Which hosts a server answers to: without keys, only those that are this machine."""

import hashlib

import pytest

from softhub.serving.keys import Keys

KEY = "k" * 24


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("localhost", 200), ("localhost:8000", 200), ("LOCALHOST:8000", 200), ("[::1]:80", 200)),
        *(("127.0.0.1", 200), ("127.1.2.3:9", 200), ("localhost.", 200), ("app.localhost:8", 200)),
        *(("evil.example", 403), ("evil.example:8000", 403), ("127.0.0.1.evil.example", 403)),
        *(("localhost.evil.example", 403), ("192.168.0.7:8000", 403), ("[::1", 403), ("", 403)),
        *(("localhost@evil.example", 403), ("0.0.0.0", 403)),
    ],
)
def test_no_web_site_can_use_a_server_without_keys_under_its_own_name(host, status, serve):
    """DNS rebinding: the browser takes the server for the site, which may then read answers."""
    server = serve()
    headers = {"Host": host}
    body = {"model": "mood", "input": "x"}
    for path in ("/", "/v1/models", "/metrics", "/static/style.css"):
        assert server.http.get(path, headers=headers).status_code == status, path
    answer = server.http.post("/v1/classify", json=body, headers=headers)
    assert answer.status_code == status
    assert server.http.get("/health", headers=headers).status_code == 200
    if status == 403:
        error = answer.json()["error"]
        assert error["type"] == "permission_error"
        assert "SOFTHUB_API_KEY" in error["message"] and "Host: localhost" in error["message"]


def test_a_server_with_keys_answers_under_any_name(serve):
    server = serve(keys=Keys([hashlib.sha256(KEY.encode()).digest()]))
    headers = {"Host": "prompts.example.com", "Authorization": f"Bearer {KEY}"}
    assert server.http.get("/v1/models", headers=headers).status_code == 200
