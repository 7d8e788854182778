"""What those who operate a server ask of it: whether it is there, and which routes are used."""

import pytest


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_load_balancers_may_ask_without_a_body(path, serve):
    server = serve()
    found, asked = server.http.get(path), server.http.head(path)
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-length"] == str(len(found.content))


def test_a_route_whose_path_has_a_name_is_counted_as_one(serve):
    server = serve()
    for name, status in [("mood", 200), ("example/tiny-llama", 200), ("nothing", 404)]:
        assert server.http.get(f"/v1/models/{name}").status_code == status
    server.http.get("/some/where/else")
    text = server.http.get("/metrics").text
    counted = 'softhub_requests_total{route="/v1/models/{name}",status='
    assert f'{counted}"200"}} 2.0' in text and f'{counted}"404"}} 1.0' in text
    assert 'softhub_requests_total{route="(other)",status="404"} 1.0' in text
    assert "nothing" not in text
