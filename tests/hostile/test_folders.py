"""Attacks that need a file system: links, pipes, devices, neighbours."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from softhub.adapter.layout import CARD, CONFIG, FILES, MANIFEST, WEIGHTS, write_atomically
from softhub.adapter.validation import check_folder, read_folder
from softhub.errors import InvalidAdapter, UnsupportedAdapter
from tests.hostile.corpus import PICKLE
from tests.hostile.sound import sound_files

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_atomically(tmp_path / "adapter", sound_files())


@pytest.fixture
def links(tmp_path: Path) -> None:
    """Skip where the platform or the user may not make symbolic links."""
    try:
        (tmp_path / "probe").symlink_to(tmp_path)
    except OSError:
        pytest.skip("no symbolic links here")


def _cached(cache: Path, repo: str = "models--me--mood") -> Path:
    """Lay an adapter out as the Hub's download cache does, links and all; return the snapshot."""
    blobs, snapshot = cache / repo / "blobs", cache / repo / "snapshots" / ("a" * 40)
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, (name, data) in enumerate(sound_files().items()):
        (blobs / str(number)).write_bytes(data)
        (snapshot / name).symlink_to(Path("../../blobs") / str(number))
    return snapshot


@pytest.mark.parametrize("name", FILES)
def test_a_link_to_a_secret_is_not_read(adapter: Path, links: None, name: str) -> None:
    secret = adapter.parent / "id_rsa"
    secret.write_text("the secret")
    (adapter / name).unlink()
    (adapter / name).symlink_to(secret)
    with pytest.raises(InvalidAdapter, match="outside of its folder") as caught:
        read_folder(adapter)
    assert "the secret" not in str(caught.value)


def test_a_link_by_way_of_a_linked_folder_is_not_read(adapter: Path, links: None) -> None:
    elsewhere = adapter.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / CARD).write_text("the secret")
    (adapter / "inside").symlink_to(elsewhere)
    (adapter / CARD).unlink()
    (adapter / CARD).symlink_to(Path("inside") / CARD)
    with pytest.raises(InvalidAdapter, match="outside of its folder"):
        read_folder(adapter)


def test_a_link_that_leads_nowhere_is_refused(adapter: Path, links: None) -> None:
    (adapter / CARD).unlink()
    (adapter / CARD).symlink_to("gone.md")
    with pytest.raises(InvalidAdapter, match="cannot be read"):
        read_folder(adapter)


def test_a_link_to_itself_is_refused(adapter: Path, links: None) -> None:
    (adapter / CARD).unlink()
    (adapter / CARD).symlink_to(CARD)
    with pytest.raises(InvalidAdapter, match="cannot be read"):
        read_folder(adapter)


def test_a_device_without_end_is_refused(adapter: Path, links: None) -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("no /dev/zero here")
    (adapter / CARD).unlink()
    (adapter / CARD).symlink_to("/dev/zero")
    with pytest.raises(InvalidAdapter, match="outside of its folder"):
        read_folder(adapter)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_without_waiting_for_a_writer(adapter: Path) -> None:
    (adapter / WEIGHTS).unlink()
    os.mkfifo(adapter / WEIGHTS)
    with pytest.raises(InvalidAdapter, match="not a regular file"):
        read_folder(adapter)


def test_a_directory_of_a_files_name_is_refused(adapter: Path) -> None:
    (adapter / MANIFEST).unlink()
    (adapter / MANIFEST).mkdir()
    with pytest.raises(InvalidAdapter, match="not a regular file"):
        read_folder(adapter)


def test_a_sparse_terabyte_is_refused_after_its_cap(adapter: Path) -> None:
    with (adapter / WEIGHTS).open("r+b") as stream:
        stream.truncate(2**40)
    with pytest.raises(InvalidAdapter, match="more than 67108864 bytes"):
        read_folder(adapter)


def test_pickled_weights_alone_are_refused_and_not_opened(adapter: Path) -> None:
    (adapter / WEIGHTS).unlink()
    (adapter / "adapter_model.bin").write_bytes(PICKLE)
    with pytest.raises(UnsupportedAdapter, match="safe_serialization=True"):
        check_folder(adapter)


def test_strangers_beside_the_four_files_are_left_alone(adapter: Path) -> None:
    for name in ("adapter_model.bin", "training_args.bin", "modeling_evil.py", ".env"):
        (adapter / name).write_bytes(PICKLE)
    assert set(read_folder(adapter)) == set(FILES)
    assert check_folder(adapter).manifest is not None


def test_the_download_caches_own_links_are_followed(tmp_path: Path, links: None) -> None:
    snapshot = _cached(tmp_path)
    assert check_folder(snapshot).manifest is not None


def test_a_cached_link_into_another_repositorys_blobs_is_refused(
    tmp_path: Path, links: None
) -> None:
    snapshot = _cached(tmp_path)
    _cached(tmp_path, "models--you--private")
    (snapshot / CARD).unlink()
    (snapshot / CARD).symlink_to(Path("../../../models--you--private/blobs/2"))
    with pytest.raises(InvalidAdapter, match="outside of its folder"):
        read_folder(snapshot)


def test_an_adapter_behind_a_linked_folder_is_read(adapter: Path, links: None) -> None:
    latest = adapter.parent / "latest"
    latest.symlink_to(adapter)
    assert set(read_folder(latest)) == set(FILES)


@pytest.mark.parametrize("name", ["missing", CONFIG])
def test_no_folder_is_said_so(adapter: Path, name: str) -> None:
    with pytest.raises(InvalidAdapter, match="no folder"):
        read_folder(adapter / name)


def test_an_empty_folder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidAdapter, match=r"has no adapter_config\.json"):
        check_folder(tmp_path)


@pytest.mark.parametrize("name", ["", *FILES])
def test_what_cannot_be_looked_at_is_not_told_as_missing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file, data in sound_files().items():
        (tmp_path / file).write_bytes(data)
    refused, lstat = str(tmp_path / name), os.lstat

    def refuse(path: Any, **options: Any) -> Any:
        if str(path) == refused:
            raise PermissionError(errno.EACCES, "Permission denied", refused)
        return lstat(path, **options)

    monkeypatch.setattr(os, "lstat", refuse)
    with pytest.raises(InvalidAdapter, match="cannot be read: Permission denied"):
        check_folder(tmp_path)
