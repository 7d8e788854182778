"""What callers pass to `Hub` by mistake, and secrets that they would publish."""

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from softhub.adapter.layout import CARD, CONFIG, WEIGHTS
from softhub.errors import HubError, InvalidAdapter, SoftHubError
from softhub.hub import Hub
from softhub.hub.secrets import check_secrets
from tests.hub.conftest import MakeAdapter

REPO = "me/sentiment"
TOKEN = "hf_" + "Ab1" * 11

MISTAKES: dict[str, Callable[[Any, Path], object]] = {
    "tags as one text": lambda hub, folder: hub.push(folder, REPO, tags="v1"),
    "tags as bytes": lambda hub, folder: hub.push(folder, REPO, tags=b"v1"),
    "tags as a number": lambda hub, folder: hub.push(folder, REPO, tags=1),
    "a tag that is a number": lambda hub, folder: hub.push(folder, REPO, tags=[1]),
    "a message that is a number": lambda hub, folder: hub.push(folder, REPO, message=7),
    "a branch that is none": lambda hub, folder: hub.push(folder, REPO, revision=None),
    "a folder that is none": lambda hub, folder: hub.push(None, REPO),
    "a folder as bytes": lambda hub, folder: hub.push(b"x", REPO),
    "a repository that is none": lambda hub, folder: hub.pull(None),
    "a repository as a path": lambda hub, folder: hub.info(Path(REPO)),
    "a revision that is a number": lambda hub, folder: hub.pull(REPO, revision=1.0),
    "a tag to set that is none": lambda hub, folder: hub.tag(REPO, None),
    "a tag to remove that is none": lambda hub, folder: hub.untag(REPO, None),
    "a reason that is none": lambda hub, folder: hub.deprecate(REPO, reason=None),
    "a limit as a text": lambda hub, folder: hub.list(limit="5"),
    "a limit of the log as a text": lambda hub, folder: hub.log(REPO, limit="5"),
    "a limit of the log below one": lambda hub, folder: hub.log(REPO, limit=-1),
    "words that are a number": lambda hub, folder: hub.search(7),
    "words that are a list": lambda hub, folder: hub.search(["a", "b"]),
    "a task that is a number": lambda hub, folder: hub.list(task=7),
    "a score as a text": lambda hub, folder: hub.list(min_score="0.9"),
    "a fingerprint as a text": lambda hub, folder: hub.list(fingerprint="abc"),
    "an unknown type of prompt": lambda hub, folder: hub.list(prompt_type="both"),
    "an unknown kind of task": lambda hub, folder: hub.search(task_kind="regression"),
    "an unknown sort": lambda hub, folder: hub.list(sort="colour"),
    "a sort that is a list": lambda hub, folder: hub.list(sort=["score"]),
    "a sort that is none": lambda hub, folder: hub.list(sort=None),
    "a hash that is a number": lambda hub, folder: hub.pull(REPO, expect_sha256=5),
    "no hash": lambda hub, folder: hub.pull(REPO, expect_sha256=""),
    "a folder to pull to with a null": lambda hub, folder: hub.pull(REPO, local_dir="\0"),
    "a folder to pull to that is a number": lambda hub, folder: hub.pull(REPO, local_dir=5),
    "a folder to push with a null": lambda hub, folder: hub.push("\0", REPO),
    "a prompt with a null": lambda hub, folder: hub.similar("\0"),
    "a prompt that is none": lambda hub, folder: hub.similar(None),
    "a limit of prompts as a text": lambda hub, folder: hub.similar(REPO, limit="5"),
    "a lock file that is none": lambda hub, folder: hub.pull_locked(None),
    "a lock file with a null": lambda hub, folder: hub.pull_locked("\0"),
    "a lock file to write that is none": lambda hub, folder: hub.lock(None, {"a": REPO}),
    "prompts to lock as a list": lambda hub, folder: hub.lock(folder / "x.lock", [REPO]),
    "a prompt to lock that is a number": lambda hub, folder: hub.lock(folder / "x.lock", {"a": 5}),
    "a name to lock that is a number": lambda hub, folder: hub.lock(folder / "x.lock", {5: REPO}),
    "half an address of version 6": lambda hub, folder: Hub("hf+https://[::1"),
    "an address with a null": lambda hub, folder: Hub("local:\0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_another_type_is_told_in_one_line(
    mistake: str, local_hub: Hub, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter(1)
    local_hub.push(folder, REPO)
    with pytest.raises(SoftHubError, match="expected") as raised:
        MISTAKES[mistake](local_hub, folder)
    assert str(raised.value).isprintable()
    assert len(local_hub.log(REPO)) == 1


def test_words_are_what_was_typed_in_any_locale(local_hub: Hub, make_adapter: MakeAdapter) -> None:
    local_hub.push(make_adapter(1, tags=["ünï"]), REPO)
    for typed in ("ünï", "ünï".encode().decode("ascii", "surrogateescape")):
        assert [info.repo_id for info in local_hub.search(typed)] == [REPO]
    for typed in ("\ud800", "\udcff", "x\udc80y"):
        assert local_hub.search(typed) == []


SECRETS = {
    "hugging face": TOKEN,
    "anthropic": "sk-ant-" + "a1" * 20,
    "google": "AIza" + "aB3-_" * 7,
    "aws": "ASIA" + "A1B2" * 4,
    "stripe": "sk_live_" + "a1" * 12,
    "npm": "npm_" + "a1" * 18,
    "pypi": "pypi-" + "AgE1" * 12,
    "slack": "xapp-1-A0-" + "1a" * 10,
    "telegram": "123456789:AA" + "b-1" * 11,
    "sendgrid": "SG." + "a1" * 10 + "." + "b2" * 10,
    "groq": "gsk_" + "a1" * 20,
    "databricks": "dapi" + "0a" * 16,
    "vault": "hvs." + "a1" * 15,
    "azure": "AccountKey=" + "aB1+" * 12 + "==",
    "a json web token": "eyJ" + "hb-G" * 5 + ".eyJ" + "zd_W" * 9 + "." + "Sfl-K" * 9,
}


@pytest.mark.parametrize("service", SECRETS)
@pytest.mark.parametrize("place", ["card", "header", "escaped", "yaml", "message", "tag"])
def test_no_secret_is_published(service: str, place: str) -> None:
    secret = SECRETS[service]
    header = json.dumps({"__metadata__": {"note": secret}}).encode()
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in secret)
    files = {
        "card": {CARD: f"key {secret}".encode()},
        "header": {WEIGHTS: struct.pack("<Q", len(header)) + header + b"\0" * 8},
        "escaped": {CONFIG: b'{"revision": "%s"}' % escaped.encode()},
        "yaml": {CARD: b'---\nnote: "%s"\n---\n' % escaped.replace("\\u00", "\\x").encode()},
    }.get(place, {})
    texts = {"the message": secret} if place == "message" else {}
    texts |= {f"the tag {secret}": secret} if place == "tag" else {}
    with pytest.raises(InvalidAdapter, match="access token") as raised:
        check_secrets(files, texts, leaves_machine=False)
    assert secret not in str(raised.value)


@pytest.mark.parametrize("name", ["TOKENIZER", "TOKENIZERS_NAME", "MAX_TOKENS_MODEL", "SECRETARY"])
def test_a_variable_that_holds_no_secret_blocks_nothing(
    name: str, local_hub: Hub, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "org/some-long-base")
    assert local_hub.push(make_adapter(1, base="org/some-long-base"), REPO).created


@pytest.mark.parametrize("name", ["MY_TOKEN", "HF_TOKEN_2", "DBPASSWORD", "AWS_SECRET_ACCESS_KEY"])
def test_the_value_of_a_secret_variable_is_not_published(
    name: str, local_hub: Hub, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "correct-horse-battery")
    with pytest.raises(InvalidAdapter, match="access token"):
        local_hub.push(make_adapter(1), REPO, message="it is correct-horse-battery")


def test_messages_and_tags_are_looked_at_by_every_verb(
    local_hub: Hub, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter(1)
    with pytest.raises(InvalidAdapter, match="the message"):
        local_hub.push(folder, REPO, message=f"with {TOKEN}")
    with pytest.raises(InvalidAdapter, match="the tag"):
        local_hub.push(folder, REPO, tags=[TOKEN])
    local_hub.push(folder, REPO)
    with pytest.raises(InvalidAdapter, match="the tag"):
        local_hub.tag(REPO, TOKEN)
    with pytest.raises(InvalidAdapter, match="access token"):
        local_hub.deprecate(REPO, reason=f"leaked {TOKEN}")


def test_a_message_with_a_local_path_does_not_leave_the_machine(
    remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    with pytest.raises(InvalidAdapter, match="/home/someone"):
        remote_hub.push(make_adapter(1), REPO, message="from /home/someone/data/x.csv")
    with pytest.raises(HubError):
        remote_hub.info(REPO)


def test_the_search_for_tokens_takes_time_in_proportion_to_the_text() -> None:
    """A card of a megabyte in which a token could begin at every fourth letter."""
    for beginning in ("eyJ-", "eyJaaaaaaaaaaa-", "SG.-"):
        started = time.monotonic()
        card = (beginning * 250_000)[: 1 << 20]
        check_secrets({CARD: card.encode()}, {}, leaves_machine=True)
        assert time.monotonic() - started < 5, beginning
