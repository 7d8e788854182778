"""The storage side of xet: hf_xet writes to a local folder, and reads from one.

Each upload session and each commit that is read gets a folder of its own, because hf_xet locks
the one it works in. What a session has uploaded is found through the shards it leaves there.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

LIFETIME = 24 * 3600  # of tokens, in seconds
SHARD_HEADER = 48  # bytes: tag, version, footer size
RECORD = 48  # bytes: every record of a shard's file section is as long
HASH = 32
HAS_VERIFICATION, HAS_METADATA = 1 << 31, 1 << 30


class XetStorage:
    """Folders for hf_xet, made when first needed."""

    def __init__(self) -> None:
        self._root: tempfile.TemporaryDirectory[str] | None = None
        self._session: Any = None
        self._count = 0

    def close(self) -> None:
        """Remove the folders."""
        if self._root is not None:
            self._root.cleanup()
            self._root = None

    def new_folder(self, kind: str) -> Path:
        """An empty folder for one session."""
        if self._root is None:
            self._root = tempfile.TemporaryDirectory(prefix="softhub-xet-")
        self._count += 1
        folder = Path(self._root.name, f"{kind}-{self._count:04d}")
        folder.mkdir()
        return folder

    def grant(self, folder: Path) -> dict[str, Any]:
        """What a token route answers, as headers' values: address, token, expiry."""
        return {
            "casUrl": f"local://{folder}",
            "accessToken": "xet-test-token",
            "exp": int(time.time()) + LIFETIME,
        }

    def hash_of(self, data: bytes) -> str:
        """The xet hash of bytes."""
        import hf_xet

        file = self.new_folder("hash") / "data"
        file.write_bytes(data)
        return str(hf_xet.hash_files([str(file)])[0].hash)

    def put(self, folder: Path, data: bytes) -> None:
        """Upload bytes to a folder."""
        with self._hf_xet().new_upload_commit(**self._access(folder)) as commit:
            commit.start_upload_bytes(data)

    def fetch(self, sha256: str) -> bytes | None:
        """The bytes of that SHA-256, out of whichever session has uploaded them."""
        if self._root is None:
            return None
        for shard in Path(self._root.name).glob("write-*/xet/xorbs/shards/*.mdb"):
            for known, (xet_hash, size) in files_in(shard.read_bytes()).items():
                if known == sha256:
                    return self._get(shard.parents[3], xet_hash, size)
        return None

    def _get(self, folder: Path, xet_hash: str, size: int) -> bytes:
        import hf_xet

        fetched = self.new_folder("fetched")
        # The client may still hold the lock of the folder's database: read from a copy.
        copy = shutil.copytree(folder, fetched / "copy")
        target = fetched / "data"
        with self._hf_xet().new_file_download_group(**self._access(copy)) as group:
            group.start_download_file(hf_xet.XetFileInfo(xet_hash, size), str(target))
        return target.read_bytes()

    def _hf_xet(self) -> Any:
        import hf_xet

        if self._session is None:
            self._session = hf_xet.XetSession()
        return self._session

    def _access(self, folder: Path) -> dict[str, Any]:
        grant = self.grant(folder)
        return {
            "endpoint": grant["casUrl"],
            "token": grant["accessToken"],
            "token_expiry_unix_secs": grant["exp"],
        }


def files_in(shard: bytes) -> dict[str, tuple[str, int]]:
    """The files a shard tells of: SHA-256 -> (xet hash, size in bytes).

    A shard's file section is a row of 48-byte records: per file a head (hash, flags, number of
    segments), its segments, as many verifications and one metadata record if the flags say so;
    a head of all ones ends it.
    """
    files = {}
    at = SHARD_HEADER
    while at + RECORD <= len(shard) and shard[at : at + HASH] != b"\xff" * HASH:
        head = shard[at : at + RECORD]
        flags, segments = _number(head, 32), _number(head, 36)
        sizes = [_number(shard, at + RECORD * (1 + index) + 36) for index in range(segments)]
        at += RECORD * (1 + segments * (2 if flags & HAS_VERIFICATION else 1))
        if flags & HAS_METADATA:
            files[_hex(shard[at : at + HASH])] = (_hex(head[:HASH]), sum(sizes))
            at += RECORD
    return files


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _hex(hash_bytes: bytes) -> str:
    """A hash as text: four little-endian words of 64 bits."""
    return b"".join(hash_bytes[at : at + 8][::-1] for at in range(0, HASH, 8)).hex()
