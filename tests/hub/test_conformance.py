"""What every hub does alike, whatever lies behind its URI."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from softhub.adapter.layout import CARD, CONFIG, FILES, MANIFEST, WEIGHTS
from softhub.adapter.manifest import PrefixShape
from softhub.adapter.validation import check_folder
from softhub.errors import (
    HubError,
    InvalidAdapter,
    PushConflict,
    RepositoryNotFound,
    RevisionNotFound,
    SoftHubWarning,
    UnsupportedAdapter,
)
from softhub.hub import Hub
from tests.hub.adapters import adapter_files, config, plain_peft_files, write
from tests.hub.conftest import MakeAdapter

REPO = "me/sentiment"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_pulled_is_what_was_pushed(hub: Hub, make_adapter: MakeAdapter) -> None:
    source = make_adapter(1)
    commit = hub.push(source, REPO, message="first words")
    assert commit.created
    assert len(commit.revision) == 40
    pulled = hub.pull(REPO)
    assert contents(pulled) == contents(source)
    assert check_folder(pulled).weights_sha256 == commit.weights_sha256
    assert hub.read(REPO, revision=commit.revision).files == contents(source)


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ({}, []),
        ({"base": "tiny/other"}, ["the base model from tiny/llama to tiny/other"]),
        ({"width": 16}, ["the width of the base model from 32 to 16"]),
        (
            {"base": "tiny/other", "width": 16},
            [
                "the base model from tiny/llama to tiny/other",
                "the width of the base model from 32 to 16",
            ],
        ),
    ],
)
def test_a_push_for_another_base_says_so(
    hub: Hub, make_adapter: MakeAdapter, fields: dict[str, Any], changes: list[str]
) -> None:
    hub.push(make_adapter(1), REPO)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", SoftHubWarning)
        hub.push(make_adapter(2, **fields), REPO)
    found = [str(item.message) for item in said if item.category is SoftHubWarning]
    assert found == [f"{REPO}: this push changes {change}" for change in changes]


def test_pull_by_branch_tag_and_commit(hub: Hub, make_adapter: MakeAdapter) -> None:
    first, second = make_adapter(1), make_adapter(2)
    one = hub.push(first, REPO, tags=["v1"])
    two = hub.push(second, REPO, tags=["v2"])
    assert contents(hub.pull(REPO, revision="v1")) == contents(first)
    assert contents(hub.pull(REPO, revision=one.revision)) == contents(first)
    assert contents(hub.pull(REPO, revision="v2")) == contents(second)
    assert contents(hub.pull(REPO, revision=two.revision)) == contents(second)
    assert contents(hub.pull(REPO)) == contents(second)
    assert hub.info(REPO).tags == ("v1", "v2")


def test_pull_into_a_folder_of_the_callers(
    hub: Hub, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    source = make_adapter(1)
    hub.push(source, REPO)
    folder = hub.pull(REPO, local_dir=tmp_path / "here" / "mood")
    assert folder == tmp_path / "here" / "mood"
    assert contents(folder) == contents(source)


def test_info_says_task_base_model_score_and_commit(hub: Hub, make_adapter: MakeAdapter) -> None:
    folder = make_adapter(1, task="triage", base="org/base", score=0.875, datasets=["org/data"])
    commit = hub.push(folder, REPO, message="why", tags=["v1"])
    info = hub.info(REPO)
    assert info.repo_id == REPO
    assert info.revision == commit.revision
    assert (info.task, info.task_kind) == ("triage", "classification")
    assert info.base_model == "org/base"
    assert info.score == ("accuracy", 0.875)
    assert info.metrics[0].low == pytest.approx(0.855)
    assert info.num_virtual_tokens == 4
    assert info.hidden_size == 32
    assert info.author == "me"
    assert info.message == "why"
    assert info.license == "apache-2.0"
    assert info.language == ("en",)
    assert info.datasets == ("org/data",)
    assert "soft-prompt" in info.keywords
    assert info.weights_sha256 == commit.weights_sha256
    assert info.total_bytes == sum(map(len, contents(folder).values()))
    assert info.unchecked is None


def test_list_shows_the_newest_of_every_repository(hub: Hub, make_adapter: MakeAdapter) -> None:
    hub.push(make_adapter(1, score=0.7), REPO)
    newest = hub.push(make_adapter(2, score=0.8), REPO)
    hub.push(make_adapter(3, task="triage"), "you/triage")
    infos = hub.list()
    assert [info.repo_id for info in infos] == [REPO, "you/triage"]
    assert infos[0].revision == newest.revision
    assert infos[0].score == ("accuracy", 0.8)


FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({"task": "triage"}, ["you/triage"]),
    ({"task": "TRIAGE"}, ["you/triage"]),
    ({"task_kind": "generation"}, ["me/poems"]),
    ({"base_model": "tiny/llama"}, ["me/sentiment", "you/triage"]),
    ({"base_model": "llama"}, ["me/sentiment", "you/triage"]),
    ({"author": "me"}, ["me/poems", "me/sentiment"]),
    ({"language": "de"}, ["me/poems"]),
    ({"license": "mit"}, ["you/triage"]),
    ({"tag": "reviews"}, ["me/sentiment"]),
    ({"dataset": "org/notes"}, ["you/triage"]),
    ({"min_score": 0.9}, ["me/sentiment", "you/triage"]),
    ({"metric": "accuracy", "min_score": 0.95}, ["you/triage"]),
    ({"metric": "bleu"}, []),
    ({"text": "tri"}, ["you/triage"]),
    ({"sort": "score"}, ["you/triage", "me/sentiment", "me/poems"]),
    ({"sort": "date"}, ["me/poems", "you/triage", "me/sentiment"]),
    ({"sort": "size", "limit": 1}, ["me/sentiment"]),
    ({"author": "me", "task": "triage"}, []),
]


def test_filters(hub: Hub, make_adapter: MakeAdapter) -> None:
    hub.push(make_adapter(1, tags=["reviews"], rows=2), REPO)
    triage = make_adapter(2, task="triage", score=0.95, license="mit", datasets=["org/notes"])
    hub.push(triage, "you/triage")
    poem = make_adapter(
        3, task="poems", kind="generation", base="tiny/gpt", language="de", score=0.2
    )
    hub.push(poem, "me/poems")
    for filters, expected in FILTERS:
        assert [info.repo_id for info in hub.list(**filters)] == expected, filters


def test_a_prefix_is_pushed_described_found_and_compared(
    hub: Hub, make_adapter: MakeAdapter
) -> None:
    shape = PrefixShape(num_layers=2, num_key_value_heads=2, head_dim=4)  # as wide as a prompt
    folder = make_adapter(1, prefix=shape)
    hub.push(folder, REPO, tags=["v1"])
    hub.push(make_adapter(2), "me/prompt")
    hub.push(make_adapter(3, prefix=shape), "me/other")
    assert contents(hub.pull(REPO)) == contents(folder)
    info = hub.info(REPO)
    assert (info.prompt_type, info.num_virtual_tokens, info.hidden_size) == ("prefix", 4, None)
    types = {info.repo_id: info.prompt_type for info in hub.list()}
    assert types == {REPO: "prefix", "me/prompt": "prompt", "me/other": "prefix"}
    found = hub.search(prompt_type="prefix", sort="name")
    assert [info.repo_id for info in found] == ["me/other", REPO]
    assert [info.repo_id for info in hub.search(prompt_type="prompt")] == ["me/prompt"]
    assert [info.repo_id for info, _ in hub.similar(REPO)] == ["me/other"]
    hub.push(make_adapter(4, prefix=shape), REPO, tags=["v2"])
    assert hub.diff(REPO, "v1").vectors is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error", SoftHubWarning)  # it is still for the same base
        hub.push(make_adapter(5), REPO)
    difference = hub.diff(REPO, "v1")
    assert difference.vectors is None  # as wide, but no longer keys and values
    assert difference.manifest["prefix.num_layers"] == (2, None)
    deeper = make_adapter(6, prefix=PrefixShape(num_layers=4, num_key_value_heads=1, head_dim=4))
    with pytest.warns(SoftHubWarning, match=r"width\) from \(2, 2, 8\) to \(4, 1, 4\)"):
        hub.push(deeper, "me/other")


def test_a_foreign_prefix_is_listed_as_one(hub: Hub, tmp_path: Path) -> None:
    shape = PrefixShape(num_layers=2, num_key_value_heads=2, head_dim=4)
    files = plain_peft_files(1)
    files["adapter_config.json"] = config(prefix=shape)
    hub.push(write(tmp_path / "foreign", files), REPO)
    info = hub.list()[0]
    assert (info.prompt_type, info.hidden_size, info.num_virtual_tokens) == ("prefix", None, 4)


def test_an_unknown_filter_is_refused_with_the_nearest(hub: Hub) -> None:
    with pytest.raises(HubError, match="did you mean 'task'"):
        hub.list(tsak="triage")


def test_equal_content_makes_no_commit(hub: Hub, make_adapter: MakeAdapter) -> None:
    first = hub.push(make_adapter(1), REPO)
    history = [entry.revision for entry in hub.log(REPO)]
    again = hub.push(make_adapter(1), REPO, message="the same once more", tags=["v1"])
    assert not again.created
    assert again.revision == first.revision
    assert hub.info(REPO).tags == ("v1",)
    assert [entry.revision for entry in hub.log(REPO)] == history


def test_log_tells_author_message_metrics_and_parents(hub: Hub, make_adapter: MakeAdapter) -> None:
    one = hub.push(make_adapter(1, score=0.7), REPO, message="one", tags=["v1"])
    two = hub.push(make_adapter(2, score=0.8), REPO, message="two")
    log = hub.log(REPO)
    assert [entry.message for entry in log][:2] == ["two", "one"]
    assert [entry.revision for entry in log][:2] == [two.revision, one.revision]
    assert log[0].parent == one.revision
    assert log[1].tags == ("v1",)
    assert [entry.metrics[0].value for entry in log[:2]] == [0.8, 0.7]
    assert log[0].author == hub.whoami()


def test_parent_commit_is_compared(hub: Hub, make_adapter: MakeAdapter) -> None:
    one = hub.push(make_adapter(1), REPO)
    two = hub.push(make_adapter(2), REPO, parent_commit=one.revision, message="theirs")
    with pytest.raises(PushConflict) as raised:
        hub.push(make_adapter(3), REPO, parent_commit=one.revision)
    assert one.revision in str(raised.value)
    assert two.revision in str(raised.value)
    assert "theirs" in str(raised.value)
    assert hub.info(REPO).revision == two.revision


def test_a_taken_tag_is_refused_and_nothing_changes(hub: Hub, make_adapter: MakeAdapter) -> None:
    one = hub.push(make_adapter(1), REPO, tags=["v1"])
    with pytest.raises(HubError, match="v1"):
        hub.push(make_adapter(2), REPO, tags=["v1"])
    assert hub.info(REPO).revision == one.revision


def test_tag_and_untag(hub: Hub, make_adapter: MakeAdapter) -> None:
    one = hub.push(make_adapter(1), REPO)
    hub.push(make_adapter(2), REPO)
    assert hub.tag(REPO, "old", revision=one.revision) == one.revision
    assert hub.tag(REPO, "old", revision=one.revision) == one.revision
    with pytest.raises(HubError, match="old"):
        hub.tag(REPO, "old")
    assert hub.info(REPO, revision="old").revision == one.revision
    hub.untag(REPO, "old")
    with pytest.raises(RevisionNotFound):
        hub.pull(REPO, revision="old")
    with pytest.raises(RevisionNotFound):
        hub.untag(REPO, "old")
    assert contents(hub.pull(REPO, revision=one.revision))


def test_a_branch_of_its_own(hub: Hub, make_adapter: MakeAdapter) -> None:
    one = hub.push(make_adapter(1), REPO)
    two = hub.push(make_adapter(2), REPO, revision="dev")
    three = hub.push(make_adapter(3), REPO, revision="dev")
    assert three.parent == two.revision
    assert hub.info(REPO).revision == one.revision
    assert hub.info(REPO, revision="dev").revision == three.revision
    assert hub.info(REPO).tags == ()


def test_a_tag_cannot_be_pushed_to(hub: Hub, make_adapter: MakeAdapter) -> None:
    hub.push(make_adapter(1), REPO, tags=["v1"])
    with pytest.raises(HubError, match="tag"):
        hub.push(make_adapter(2), REPO, revision="v1")


def test_missing_things_are_told_apart(hub: Hub, make_adapter: MakeAdapter) -> None:
    hub.push(make_adapter(1), REPO)
    with pytest.raises(RepositoryNotFound):
        hub.pull("me/other")
    with pytest.raises(RepositoryNotFound):
        hub.info("me/other")
    with pytest.raises(RevisionNotFound):
        hub.pull(REPO, revision="v9")
    with pytest.raises(RevisionNotFound):
        hub.pull(REPO, revision="0" * 40)


def test_delete_removes_a_repository_and_no_other(hub: Hub, make_adapter: MakeAdapter) -> None:
    hub.push(make_adapter(1), REPO)
    hub.push(make_adapter(2), "me/other")
    hub.delete(REPO)
    with pytest.raises(RepositoryNotFound):
        hub.pull(REPO)
    with pytest.raises(RepositoryNotFound):
        hub.delete(REPO)
    assert [info.repo_id for info in hub.list()] == ["me/other"]


def test_verify_is_silent_about_sound_history(hub: Hub, make_adapter: MakeAdapter) -> None:
    one = hub.push(make_adapter(1), REPO)
    two = hub.push(make_adapter(2), REPO)
    verdicts = hub.verify(REPO)
    assert verdicts[one.revision] is None
    assert verdicts[two.revision] is None


def test_a_pull_is_not_copied_over_the_hub_s_own_copy(
    hub: Hub, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    hub.push(make_adapter(1), REPO)
    hub.push(make_adapter(2), "me/other")
    folder = hub.pull(REPO)
    with pytest.raises(InvalidAdapter, match="hub's own copy"):
        hub.pull("me/other", local_dir=folder)
    assert hub.pull(REPO) == folder


def test_expected_hash(hub: Hub, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    commit = hub.push(make_adapter(1), REPO)
    assert commit.weights_sha256
    assert hub.pull(REPO, expect_sha256=commit.weights_sha256)
    with pytest.raises(InvalidAdapter, match=commit.weights_sha256):
        hub.pull(REPO, expect_sha256="0" * 64, local_dir=tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_plain_peft_adapters_are_listed_pulled_and_said_to_be_unchecked(
    hub: Hub, tmp_path: Path
) -> None:
    source = write(tmp_path / "plain", plain_peft_files(1, base="org/base"))
    hub.push(source, REPO)
    (info,) = hub.list()
    assert info.base_model == "org/base"
    assert info.num_virtual_tokens == 4
    assert info.task is None
    assert info.unchecked and "softhub.json" in info.unchecked
    assert contents(hub.pull(REPO)) == contents(source)


def test_only_an_adapters_files_are_pushed(
    hub: Hub, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    source = make_adapter(1)
    (source / "notes.txt").write_text("private")
    (source / "tokenizer.json").write_text("{}")
    hub.push(source, REPO)
    assert sorted(contents(hub.pull(REPO))) == sorted(FILES)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_an_incomplete_adapter_is_not_pushed(
    hub: Hub, make_adapter: MakeAdapter, name: str
) -> None:
    source = make_adapter(1)
    (source / name).unlink()
    with pytest.raises(InvalidAdapter):
        hub.push(source, REPO)
    assert hub.list() == []


def test_other_kinds_of_adapters_are_not_pushed(hub: Hub, make_adapter: MakeAdapter) -> None:
    source = make_adapter(1)
    (source / MANIFEST).unlink()
    text = (source / CONFIG).read_text().replace("PROMPT_TUNING", "LORA")
    (source / CONFIG).write_text(text)
    with pytest.raises(UnsupportedAdapter):
        hub.push(source, REPO)
    assert hub.list() == []


@pytest.mark.parametrize(
    "repo_id",
    [
        "sentiment",
        "a/b/c",
        "../b",
        "a/..",
        "a//b",
        "/a",
        "a/b--c",
        "a/b\n",
        "a/.hid",
        "me/con",
        "-a/b",
    ],
)
def test_unsafe_repository_names_are_refused(
    hub: Hub, make_adapter: MakeAdapter, repo_id: str
) -> None:
    with pytest.raises(HubError, match="repository name"):
        hub.push(make_adapter(1), repo_id)
    with pytest.raises(HubError, match="repository name"):
        hub.pull(repo_id)


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "history", "refs", "HEAD", ".x", "-x", "x\n", "f" * 40, "x" * 101]
)
def test_unsafe_tags_are_refused(hub: Hub, make_adapter: MakeAdapter, name: str) -> None:
    with pytest.raises(HubError, match="cannot name"):
        hub.push(make_adapter(1), REPO, tags=[name])
    assert hub.list() == []


def test_texts_of_strangers_are_harmless_on_a_terminal(hub: Hub, tmp_path: Path) -> None:
    files = plain_peft_files(1)
    evil = "\\e[31mred\\u202e\\a" + "x" * 5_000
    files[CARD] = f'---\nlibrary_name: peft\ntags: ["{evil}"]\n---\n'.encode()
    hub.push(write(tmp_path / "evil", files), REPO, message="\x1b[2J\u202ewiped\nclean")
    info = hub.info(REPO)
    for text in (*info.keywords, info.message):
        assert text.isprintable()
        assert len(text) <= 300
    assert info.message.endswith("wiped clean")


def test_a_deprecated_adapter_warns_and_still_works(hub: Hub, make_adapter: MakeAdapter) -> None:
    hub.push(make_adapter(1), REPO, tags=["v1"])
    hub.deprecate(REPO, reason="too rude", replacement="me/polite")
    info = hub.info(REPO)
    assert (info.deprecated, info.replacement) == ("too rude", "me/polite")
    with pytest.warns(UserWarning, match="too rude; use me/polite"):
        hub.pull(REPO)
    with pytest.warns(UserWarning, match="too rude; use me/polite"):
        pinned = hub.pull(REPO, revision="v1")
    with pytest.warns(UserWarning, match="too rude; use me/polite") as caught:
        hub.read(REPO)
    assert caught[0].filename == __file__
    assert check_folder(pinned)
    assert hub.info(REPO, revision="v1").deprecated is None


def test_tokens_are_not_pushed(hub: Hub, make_adapter: MakeAdapter) -> None:
    source = make_adapter(1, body="use hf_" + "aB3" * 12 + " to log in\n")
    with pytest.raises(InvalidAdapter) as raised:
        hub.push(source, REPO)
    assert "aB3" not in str(raised.value)
    assert hub.list() == []


def test_own_secrets_are_not_pushed(
    hub: Hub, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "correct-horse-battery")
    with pytest.raises(InvalidAdapter, match="token"):
        hub.push(make_adapter(1, body="correct-horse-battery\n"), REPO)


def test_search_looks_for_words_and_puts_the_best_first(
    hub: Hub, make_adapter: MakeAdapter
) -> None:
    hub.push(make_adapter(1, score=0.7), "a/reviews-small")
    hub.push(make_adapter(2, score=0.9), "b/reviews-large")
    hub.push(make_adapter(3, task="triage", score=0.99), "c/notes")
    assert [i.repo_id for i in hub.search("reviews")] == ["b/reviews-large", "a/reviews-small"]
    assert [i.repo_id for i in hub.search("SENTIMENT large")] == ["b/reviews-large"]
    assert [i.repo_id for i in hub.search(limit=1)] == ["c/notes"]


def test_adapter_files_are_what_the_tests_think(tmp_path: Path) -> None:
    found = check_folder(write(tmp_path / "a", adapter_files(1)))
    assert found.shape == (4, 32)
