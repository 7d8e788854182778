"""The loopback hub's search: tags from cards, filters, pages, details."""

from collections.abc import Iterator

from tests.hub.server import HubServer
from tests.hub.server.client import CARD, WEIGHTS, api_of


def seed_models(server: HubServer, count: int = 7) -> None:
    for number in range(count):
        card = CARD.replace(b"sentiment", b"even" if number % 2 == 0 else b"odd")
        server.seed(f"org{number % 3}/prompt-{number}", {"README.md": card, WEIGHTS: b"w"})


def ids(models: Iterator[object]) -> list[str]:
    return [model.id for model in models]  # type: ignore[attr-defined]


def test_tags_come_from_the_card(server: HubServer) -> None:
    server.seed("org/mood", {"README.md": CARD + b"arxiv.org/abs/2104.08691", WEIGHTS: b"w"})
    adapter = b'{"base_model_name_or_path": "org/base", "task_type": "CAUSAL_LM", "r": 1}'
    server.seed("org/plain", {"adapter_config.json": adapter})
    info = api_of(server).model_info("org/mood")
    assert info.tags == [
        "peft",
        "safetensors",
        "softhub",
        "soft-prompt",
        "sentiment",
        "text-generation",
        "en",
        "dataset:org/reviews",
        "arxiv:2104.08691",
        "base_model:org/base",
        "base_model:adapter:org/base",
        "license:apache-2.0",
        "region:us",
    ]
    assert (info.library_name, info.pipeline_tag) == ("peft", "text-generation")
    assert info.card_data is not None and info.card_data.base_model == "org/base"
    plain = api_of(server).model_info("org/plain")
    assert (plain.library_name, plain.tags) == ("peft", ["peft", "region:us"])
    assert plain.config == {
        "peft": {"base_model_name_or_path": "org/base", "task_type": "CAUSAL_LM"}
    }


def test_filters_are_joined_by_and(server: HubServer) -> None:
    seed_models(server)
    api = api_of(server, False)
    even = ids(api.list_models(filter=["softhub", "base_model:adapter:org/base", "even"]))
    assert sorted(even) == ["org0/prompt-0", "org0/prompt-6", "org1/prompt-4", "org2/prompt-2"]
    assert ids(api.list_models(filter=["even", "odd"])) == []
    assert ids(api.list_models(filter="odd", author="org0")) == ["org0/prompt-3"]
    assert ids(api.list_models(search="PROMPT-5")) == ["org2/prompt-5"]
    assert ids(api.list_models(pipeline_tag="summarization")) == []
    assert (
        len(ids(api.list_models(trained_dataset="org/reviews", filter="license:apache-2.0"))) == 7
    )


def test_pages_are_followed(server: HubServer) -> None:
    seed_models(server)
    server.page = 3
    api = api_of(server)
    assert len(set(ids(api.list_models(filter="softhub")))) == 7
    assert len(server.sent_to("list_models")) == 3
    assert len(ids(api.list_models(limit=2))) == 2
    assert len(server.sent_to("list_models")) == 4
    server.seed("org0/prompt-0", {f"{name}.txt": b"" for name in range(8)})
    assert len(api.list_repo_files("org0/prompt-0")) == 11
    for _ in range(4):
        server.seed("org0/prompt-0", {"a.txt": b"a"})
    assert len(api.list_repo_commits("org0/prompt-0")) == 7


def test_sorted_and_detailed(server: HubServer) -> None:
    seed_models(server, 3)
    server.seed("org0/prompt-0", {"new.txt": b"new"})
    server.store.repos["org2/prompt-2"].downloads = 9
    api = api_of(server)
    assert ids(api.list_models(sort="last_modified"))[0] == "org0/prompt-0"
    assert ids(api.list_models(sort="created_at"))[0] == "org2/prompt-2"
    assert ids(api.list_models(sort="downloads"))[0] == "org2/prompt-2"
    brief = next(iter(api.list_models(sort="downloads")))
    assert (brief.sha, brief.siblings, brief.card_data, brief.author) == (None, None, None, None)
    full = next(iter(api.list_models(sort="downloads", full=True, cardData=True)))
    assert full.sha == api.model_info("org2/prompt-2").sha
    assert {sibling.rfilename for sibling in full.siblings or []} > {WEIGHTS, "README.md"}
    assert full.card_data is not None and full.card_data.license == "apache-2.0"
    some = next(iter(api.list_models(expand=["sha", "gated"])))
    assert (some.sha is not None, some.gated, some.tags) == (True, False, None)
