"""What strangers write is read or refused, never worse: property tests over the hub's readers."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from softhub.adapter.adapter import Adapter
from softhub.adapter.front_matter import add_to_front_matter, read_front_matter
from softhub.adapter.layout import CARD, CONFIG, MANIFEST, REQUIRED
from softhub.errors import HubError, InvalidAdapter, RevisionNotFound
from softhub.hub.describe import describe
from softhub.hub.names import (
    check_repo_id,
    check_revision,
    check_revision_name,
    repo_folder_name,
    repo_id_of,
)
from softhub.hub.records import AdapterInfo, Commit, FileEntry, plain

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=20,
)
KEYS = st.sampled_from(
    ["tags", "license", "language", "datasets", "base_model", "model-index", "softhub_deprecated"]
)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_front_matter_is_read_or_refused(data: bytes) -> None:
    try:
        assert isinstance(read_front_matter(b"---\n" + data + b"\n---\n"), dict)
    except InvalidAdapter as error:
        assert str(error).isprintable() or "\n" not in str(error)


@given(st.dictionaries(KEYS, JSON, max_size=7), st.text(max_size=100))
@settings(max_examples=300, deadline=None)
def test_any_card_gives_a_printable_description(card: dict[str, object], body: str) -> None:
    block = json.dumps(card)
    files = {CARD: f"---\n{block}\n---\n{body}".encode(errors="replace"), CONFIG: b"{}"}
    info = describe("me/x", Adapter(files, "me/x"), revision="")
    for text in (*info.keywords, *info.language, *info.datasets):
        assert text.isprintable()
    for text in (info.license, info.base_model, info.deprecated, info.replacement, info.unchecked):
        assert text is None or text.isprintable()
    assert AdapterInfo.from_record(json.loads(json.dumps(info.to_record()))) == info


@given(st.binary(max_size=200), st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_damaged_files_still_give_a_description(manifest: bytes, config: bytes) -> None:
    adapter = Adapter({MANIFEST: manifest, CONFIG: config}, "me/x")
    info = describe("me/x", adapter, revision="")
    assert info.unchecked
    assert info.unchecked.isprintable()


@given(st.text(max_size=3_000))
def test_plain_text_is_one_printable_line(text: str) -> None:
    line = plain(text, most=100)
    assert line.isprintable()
    assert len(line) <= 100
    assert plain(line, most=100) == line


@given(st.binary(max_size=300))
def test_any_commit_record_but_the_right_one_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidAdapter):
        Commit.from_bytes(data, expected="0" * 40, origin="test")


@given(JSON)
def test_a_self_consistent_commit_of_nonsense_is_refused(value: object) -> None:
    from softhub.hub.records import commit_id

    data = json.dumps(value).encode()
    with pytest.raises(InvalidAdapter):
        Commit.from_bytes(data, expected=commit_id(data), origin="test")


@given(st.text(max_size=50), st.text(max_size=20), st.integers(0, 1000))
def test_commits_survive_the_disk(message: str, author: str, size: int) -> None:
    clean = message.encode(errors="replace").decode()
    files = {name: FileEntry(size, "0" * 64) for name in REQUIRED}
    commit = Commit(None, plain(author), "2026-01-01", plain(clean), files)
    assert Commit.from_bytes(commit.to_bytes(), expected=commit.id, origin="test") == commit


@given(st.text(max_size=120))
@settings(max_examples=500)
def test_a_name_that_passes_is_safe_in_a_path(name: str) -> None:
    for check in (check_repo_id, check_revision_name, check_revision):
        try:
            check(name)
        except (HubError, RevisionNotFound):
            continue
        assert ".." not in name
        assert not set(name) & set('\\:*?"<>|\0\n\r\t ~$')
        assert name.count("/") == (1 if check is check_repo_id else 0)
        assert name.isascii()


@given(st.from_regex(r"[a-z0-9._-]{1,20}/[a-z0-9._-]{1,20}", fullmatch=True))
@settings(max_examples=500)
def test_folders_and_names_are_one_to_one(name: str) -> None:
    try:
        check_repo_id(name)
    except HubError:
        return
    assert repo_id_of(repo_folder_name(name)) == name


@pytest.mark.parametrize(
    "block",
    [
        "a: &a [x]\nb: *a",
        "a: " + "[" * 30_000,
        "a: " + "{b: " * 1_000,
        "x: " + "y" * 100_000,
        "? [a, b]\n: c",
        "!!python/object/apply:os.system ['true']",
        "a: !!python/name:os.system",
        "- a\n- b",
    ],
)
def test_yaml_tricks_are_refused(block: str) -> None:
    with pytest.raises(InvalidAdapter):
        read_front_matter(f"---\n{block}\n---\n".encode())


@pytest.mark.parametrize(
    "scalar",
    [
        "1:59:59" + ":59" * 2_000,
        "no",
        "1.10",
        "0x1F",
        "1_000",
        "2026-99-99",
        ".inf",
        "null",
        "=",
        "2026-01-01",
        "010",
        "<<",
        "9" * 5_000,
    ],
    ids=lambda scalar: scalar[:12],
)
def test_scalars_are_texts(scalar: str) -> None:
    assert read_front_matter(f"---\nlicense: {scalar}\n---\n".encode()) == {"license": scalar}
    adapter = Adapter({CARD: f"---\nlicense: {scalar}\n---\n".encode(), CONFIG: b"{}"}, "me/x")
    license = describe("me/x", adapter, revision="").license
    assert license and license[:3] == scalar[:3]


NOTICE = {"reason": 'it\'s "old": # né', "replacement": "me/new"}
ENTRY = 'softhub_deprecated: {"reason": "it\'s \\"old\\": # né", "replacement": "me/new"}'


@pytest.mark.parametrize(
    ("card", "marked"),
    [
        ("# Title\n", "---\n%s\n---\n# Title\n"),
        ("", "---\n%s\n---\n"),
        ("---\n---\n# T\n---\n", "---\n%s\n---\n# T\n---\n"),
        ("---\n# only a comment\n---\nx", "---\n%s\n# only a comment\n---\nx"),
        (
            "---\n# mine\nv: 1.10  # as is\nok: no\n\na:   'b'\n---\n# T\n",
            "---\n# mine\n%s\nv: 1.10  # as is\nok: no\n\na:   'b'\n---\n# T\n",
        ),
        ("---\r\na: b\r\n---\r\nx\r\n", "---\r\n%s\r\na: b\r\n---\r\nx\r\n"),
        ("---\n  a: b\n  c: d\n---\n", "---\n  %s\n  a: b\n  c: d\n---\n"),
        ('---\n{"a": 1.10}\n---\n', '---\n{%s, "a": 1.10}\n---\n'),
        ("---\n{}\n---\n", "---\n{%s}\n---\n"),
        ("\ufeff---\na: b\n---\n", "\ufeff---\n%s\na: b\n---\n"),
        ("\ufeff# T\n", "\ufeff---\n%s\n---\n# T\n"),
        (
            "---\na: ü😀\nsofthub_deprecated:\n  reason: x\n  # why\n# next\nb: on\n---\n",
            "---\na: ü😀\n%s\n  # why\n# next\nb: on\n---\n",
        ),
        (
            "---\nsofthub_deprecated: {reason: x} # y\nb: on\n---\n",
            "---\n%s # y\nb: on\n---\n",
        ),
        ("---\nsofthub_deprecated:\nb: on\n---\n", "---\n%s\nb: on\n---\n"),
        (
            "---\nsofthub_deprecated:\n  reason: |\n    x\n    y\nb: on\n---\n",
            "---\n%s\nb: on\n---\n",
        ),
        ("---\nsofthub_deprecated:\n- a\n- b: c\nb: on\n---\n", "---\n%s\nb: on\n---\n"),
    ],
)
def test_a_key_is_added_and_the_rest_left_to_the_byte(card: str, marked: str) -> None:
    edited = add_to_front_matter(card.encode(), "softhub_deprecated", NOTICE).decode()
    assert edited == marked.replace("%s", ENTRY)


@given(st.dictionaries(KEYS, JSON, max_size=7), st.text(max_size=100))
@settings(max_examples=200, deadline=None)
def test_any_front_matter_gets_the_key_and_keeps_the_others(
    front: dict[str, object], body: str
) -> None:
    card = f"---\n{yaml.safe_dump(front)}---\n{body}".encode(errors="replace")
    before = read_front_matter(card)
    edited = add_to_front_matter(card, "softhub_deprecated", NOTICE)
    assert read_front_matter(edited) == {**before, "softhub_deprecated": NOTICE}
    assert edited.endswith(f"---\n{body}".encode(errors="replace"))


@pytest.mark.parametrize(
    "block", ["!!map\na: b", "&x\na: b", "? a\n: b", "--- \na: b", "a: b\n..."]
)
def test_a_key_is_added_or_the_card_refused(block: str) -> None:
    card = f"---\n{block}\n---\n# T\n".encode()
    try:
        edited = add_to_front_matter(card, "softhub_deprecated", NOTICE)
    except InvalidAdapter:
        return
    assert edited.decode().replace(ENTRY, "").replace("\n\n", "\n") == card.decode()
