import hashlib
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from softhub.adapter import layout
from softhub.adapter.layout import (
    CARD,
    CONFIG,
    FILES,
    WEIGHTS,
    find_interrupted_save,
    write_atomically,
    write_durably,
)
from softhub.adapter.validation import check_folder, read_folder
from softhub.errors import InvalidAdapter
from tests.hostile.sound import sound_files

Rename = Callable[[Path, Path], Path]


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_file_has_a_cap() -> None:
    assert set(layout.MAX_BYTES) == set(FILES)


def test_sha256_is_that_of_the_standard_library() -> None:
    assert layout.sha256_of(b"softhub") == hashlib.sha256(b"softhub").hexdigest()


def test_writes_all_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = write_atomically(tmp_path / "deep" / "er" / "mood", sound_files())
    assert _contents(folder) == sound_files()
    assert [entry.name for entry in folder.parent.iterdir()] == ["mood"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_files_are_readable_by_all_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        folder = write_atomically(tmp_path / "mood", sound_files())
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}


def test_replaces_an_adapter_as_a_whole(tmp_path: Path) -> None:
    folder = write_atomically(tmp_path / "mood", sound_files())
    plain = {name: sound_files()[name] for name in (WEIGHTS, CONFIG)}
    write_atomically(folder, plain)
    assert _contents(folder) == plain, "no file of the earlier adapter may stay"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mood"]


def test_writes_into_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "mood").mkdir()
    assert _contents(write_atomically(tmp_path / "mood", sound_files())) == sound_files()


def test_never_replaces_a_folder_with_other_things_in_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-60").mkdir()
    with pytest.raises(InvalidAdapter, match=r"'checkpoint-60'.*would be lost"):
        write_atomically(tmp_path, sound_files())
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint-60"]


@pytest.mark.parametrize("inside", ["", "prompt"])
def test_never_writes_into_a_hub(tmp_path: Path, inside: str) -> None:
    snapshot = tmp_path / "models--me--mood" / "snapshots" / ("1" * 40)
    write_atomically(snapshot, sound_files(), within_hub=True)
    (tmp_path / "link").symlink_to(snapshot)
    before = _contents(snapshot)
    for place in (snapshot, tmp_path / "link"):
        with pytest.raises(InvalidAdapter, match="hub's own copy"):
            write_atomically(place / inside, {CARD: b"new"})
    assert _contents(snapshot) == before


def test_never_replaces_a_file(tmp_path: Path) -> None:
    (tmp_path / "mood").write_text("mine")
    with pytest.raises(InvalidAdapter, match="is a file"):
        write_atomically(tmp_path / "mood", sound_files())
    assert (tmp_path / "mood").read_text() == "mine"


@pytest.mark.parametrize("name", ["../evil.py", "/tmp/evil.py", "adapter_model.bin", "a/b", ""])
def test_writes_no_name_that_is_not_an_adapters(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidAdapter, match="not a file of an adapter"):
        write_atomically(tmp_path / "mood", {**sound_files(), name: b"x"})
    assert list(tmp_path.iterdir()) == []


def test_follows_a_link_to_the_adapters_folder(tmp_path: Path) -> None:
    target = write_atomically(tmp_path / "v1", {CARD: b"old"})
    try:
        (tmp_path / "latest").symlink_to(target)
    except OSError:
        pytest.skip("no symbolic links here")
    write_atomically(tmp_path / "latest", sound_files())
    assert (tmp_path / "latest").is_symlink()
    assert _contents(target) == sound_files()


def test_what_killed_writers_left_is_removed_when_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [".mood.0123456789ab.tmp", ".mood.0123456789ab.old"]
    others = [".mood.notes.tmp", ".moody.0123456789ab.tmp", "mood.0123456789ab.tmp"]
    for name in (*left, *others):
        write_durably(tmp_path / name, {CARD: b"x"})
    present = {*left, *others, "mood"}
    write_atomically(tmp_path / "mood", sound_files())
    assert {entry.name for entry in tmp_path.iterdir()} == present, "they may be at work"
    later = time.time() + 4_000
    monkeypatch.setattr(time, "time", lambda: later)
    write_atomically(tmp_path / "mood", sound_files())
    assert {entry.name for entry in tmp_path.iterdir()} == {*others, "mood"}


def test_a_save_that_is_killed_between_its_renames_leaves_the_earlier_adapter_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_atomically(tmp_path / "mood", sound_files())
    rename, calls = Path.rename, []

    def die_before_the_second(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", die_before_the_second)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(folder, {CARD: b"new"})
    monkeypatch.undo()
    earlier = find_interrupted_save(folder)
    assert earlier is not None
    assert _contents(earlier) == sound_files()
    with pytest.raises(InvalidAdapter, match=re.escape(str(earlier))):
        read_folder(folder)
    earlier.rename(folder)
    assert check_folder(folder).manifest is not None
    assert find_interrupted_save(folder) is None


@pytest.mark.parametrize("failing", range(2))
def test_a_failed_rename_leaves_the_earlier_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    folder = write_atomically(tmp_path / "mood", {CARD: b"old"})
    rename, calls = Path.rename, []

    def fail_once(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing + 1:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(OSError, match="No space"):
        write_atomically(folder, sound_files())
    assert _contents(folder) == {CARD: b"old"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["mood"]


@pytest.mark.parametrize("failing", range(6))
def test_a_failed_flush_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    flush, calls = os.fsync, []

    def fail_once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == failing + 1:
            raise OSError(5, "Input/output error")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(OSError, match="Input/output"):
        write_atomically(tmp_path / "mood", sound_files())
    written = tmp_path / "mood"
    assert not written.exists() or _contents(written) == sound_files()
    assert [entry for entry in tmp_path.iterdir() if entry != written] == []


@pytest.mark.skipif(os.name == "nt", reason="directories cannot be flushed on Windows")
def test_flushes_each_file_its_directory_and_the_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, flushed = os.fsync, []

    def record(descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        flushed.append((stat.S_ISDIR(mode), os.fstat(descriptor).st_ino))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    folder = write_atomically(tmp_path / "mood", sound_files())
    inodes = [(False, (folder / name).stat().st_ino) for name in sound_files()]
    assert flushed == [*inodes, (True, folder.stat().st_ino), (True, tmp_path.stat().st_ino)]


def test_write_durably_never_adds_to_a_directory(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        write_durably(tmp_path, sound_files())
    assert list(tmp_path.iterdir()) == []
