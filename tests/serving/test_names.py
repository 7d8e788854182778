"""What a request's `model` may name: one revision by all its names, and errors for clients."""

import pytest

from softhub.hub import Hub
from softhub.serving.keys import Keys
from tests.prompts import MOOD, TEXTS

ADMIN = "a" * 24


def refused(server, name):
    answer = server.post("/v1/classify", model=name, input="x")
    return answer.status_code, answer.json()["error"]["message"]


@pytest.mark.parametrize("allow", ["me/*", "me/mood", "me/mood@main"])
def test_a_name_without_a_revision_is_the_loaded_main(allow, serve, adapter):
    """So that an adapter which changes on the hub has one answer under both of its names."""
    hub = Hub()
    hub.push(adapter("one", 5, MOOD, seed=1), "me/mood")
    server = serve(hub=hub, allow=[allow])
    names = ("me/mood", "me/mood@main", "me/mood@")

    def answers(asked):
        bodies = [server.post("/v1/classify", model=name, input=TEXTS[0]).json() for name in asked]
        assert [body["model"] for body in bodies] == list(asked)
        return [body["data"] for body in bodies]

    (first,) = answers(names[:1])
    hub.push(adapter("two", 5, MOOD, seed=2), "me/mood")
    assert answers(names) == [first] * 3
    assert [name for name in server.model.prompts if "/" in name] == ["me/mood"]
    server.engine.unload("me/mood")
    later = answers(names[::-1])
    assert later == [later[0]] * 3 and later[0] != first


def test_another_revision_is_another_model(serve, adapter):
    hub = Hub()
    hub.push(adapter("one", 5, MOOD, seed=1), "me/mood", tags=["v1"])
    server = serve(hub=hub, allow=["me/mood@main"])
    assert refused(server, "me/mood@v1")[0] == 404
    server = serve(hub=hub, allow=["me/mood@v1"])
    assert refused(server, "me/mood")[0] == refused(server, "mood@main")[0] == 404
    assert server.post("/v1/classify", model="me/mood@v1", input="x").status_code == 200


def test_what_the_hub_lacks_does_not_exist_and_the_answer_shows_no_path(serve, adapter):
    hub = Hub()
    hub.push(adapter("one", 5, MOOD), "me/mood")
    server = serve(hub=hub, allow=["me/*"])
    for name in ("me/none", "me/mood@v9", "me/mood@../../x", "other/mood", "nothing"):
        status, message = refused(server, name)
        assert (status, message) == (
            404,
            f"The model {name!r} does not exist; GET /v1/models lists those that are loaded.",
        )


def test_a_hub_that_does_not_answer_is_explained_to_the_operator_only(serve, caplog):
    server = serve(hub=Hub("hf+http://127.0.0.1:9", offline=True), allow=["me/*"])
    answer = server.post("/v1/classify", model="me/mood", input="x")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "hub_unavailable")
    assert "'me/mood' cannot be loaded from the hub" in error["message"]
    assert "offline" not in error["message"] and "offline" in caplog.text


def test_unloading_what_is_not_loaded_names_a_route_and_no_function(serve):
    server = serve(admin_keys=Keys.read(None, ADMIN))
    answer = server.http.post(
        "/v1/unload_prompt_adapter",
        json={"prompt_name": "none"},
        headers={"Authorization": f"Bearer {ADMIN}"},
    )
    expected = "The model 'none' does not exist; GET /v1/models lists those that are loaded."
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, expected)


def test_a_pulled_adapter_is_unloaded_by_each_of_its_names(serve, adapter):
    hub = Hub()
    hub.push(adapter("one", 5, MOOD), "me/mood")
    server = serve(hub=hub, allow=["me/*"], admin_keys=Keys.read(None, ADMIN))
    for name in ("me/mood", "me/mood@main"):
        assert server.post("/v1/classify", model="me/mood", input="x").status_code == 200
        answer = server.http.post(
            "/v1/unload_prompt_adapter",
            json={"prompt_name": name},
            headers={"Authorization": f"Bearer {ADMIN}"},
        )
        assert answer.status_code == 200 and "me/mood" not in server.model.prompts
