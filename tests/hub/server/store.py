"""The repos: a git-like store in memory, with git's own ids, so that clients can verify them."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from .wire import HubError

LFS_PATTERNS = ("safetensors", "bin", "pt", "pth", "ckpt", "gguf", "onnx", "npz", "zip", "parquet")
GITATTRIBUTES = "".join(
    f"*.{extension} filter=lfs diff=lfs merge=lfs -text\n" for extension in LFS_PATTERNS
).encode()
REF_NAME = re.compile(r"(?!.*(\.\.|//|@\{|\.lock$|/$))[A-Za-z0-9_][A-Za-z0-9_.\-/+]*")


def git_id(kind: str, data: bytes) -> str:
    """The id git gives an object: SHA-1 of `<kind> <length>\\0<data>`, 40 hex."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


@dataclass(frozen=True)
class StoredFile:
    """A file in a commit. `oid` is git's blob id: of the pointer, where the bytes are in LFS."""

    oid: str
    size: int
    sha256: str | None = None
    xet_hash: str | None = None
    pointer_size: int = 0

    @property
    def key(self) -> str:
        """Where the bytes are in `Store.objects`: by SHA-256 in LFS, else by blob id."""
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Commit:
    """A commit: its files by path, its parent's id, and who said what when."""

    id: str
    parent: str | None
    files: Mapping[str, StoredFile]
    author: str
    date: datetime
    title: str
    message: str


@dataclass
class User:
    """An account and its token; `role` is "write" or "read", as tokens have it."""

    name: str
    token: str
    role: str = "write"
    organizations: tuple[str, ...] = ()

    def owns(self, namespace: str) -> bool:
        """Whether the user may act under a namespace."""
        return namespace == self.name or namespace in self.organizations


@dataclass
class Repo:
    """A model repo: settings, refs (name -> commit id) and every commit by id."""

    id: str
    private: bool
    created: datetime
    gated: str | bool = False
    admitted: set[str] = field(default_factory=set)  # users let in where gated
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    downloads: int = 0
    likes: int = 0

    @property
    def object_id(self) -> str:
        """The 24 hex the Hub's API calls `_id`."""
        return git_id("repo", f"{self.id}{self.created}".encode())[:24]

    @property
    def namespace(self) -> str:
        """The part of the id before the slash."""
        return self.id.partition("/")[0] if "/" in self.id else ""

    @property
    def head(self) -> Commit:
        """The newest commit on main."""
        return self.commits[self.branches["main"]]

    def commit(self, revision: str) -> Commit:
        """The commit that a branch, tag, `refs/…` name, full or short hash stands for.

        Raises:
            HubError: 404 RevisionNotFound.
        """
        for prefix, names in (("refs/heads/", self.branches), ("refs/tags/", self.tags)):
            name = revision.removeprefix(prefix)
            if name in names:
                return self.commits[names[name]]
        if re.fullmatch(r"[0-9a-f]{7,40}", revision):
            found = [commit for id, commit in self.commits.items() if id.startswith(revision)]
            if len(found) == 1:
                return found[0]
        raise HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")

    def history(self, revision: str) -> list[Commit]:
        """Commits from a revision back to the first, newest first."""
        commits = [self.commit(revision)]
        while (parent := commits[-1].parent) is not None:
            commits.append(self.commits[parent])
        return commits


class Store:
    """All repos, the bytes behind them, and a clock that makes every run give the same ids.

    `objects` holds bytes by git blob id, or by SHA-256 for what came through LFS or xet.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.xet_hashes: dict[str, str] = {}
        self._now = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def tick(self) -> datetime:
        """The time now: one second after the last one told."""
        self._now += timedelta(seconds=1)
        return self._now

    def create(self, repo_id: str, *, private: bool = False, author: str = "hub") -> Repo:
        """A new repo with the Hub's first commit, which holds `.gitattributes` alone."""
        with self.lock:
            repo = Repo(repo_id, private, self.tick())
            self.repos[repo_id] = repo
            self.commit(
                repo,
                {".gitattributes": self.keep(GITATTRIBUTES)},
                branch="main",
                title="initial commit",
                author=author,
            )
            return repo

    def keep(self, data: bytes) -> StoredFile:
        """Store bytes as a regular git blob."""
        oid = git_id("blob", data)
        self.objects[oid] = data
        return StoredFile(oid, len(data))

    def keep_lfs(self, data: bytes) -> StoredFile:
        """Store bytes as an LFS object."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.objects[sha256] = data
        return self.lfs_file(sha256)

    def lfs_file(self, sha256: str) -> StoredFile:
        """The pointer to an LFS object that has been uploaded.

        Raises:
            HubError: 400 when it has not.
        """
        if sha256 not in self.objects:
            raise HubError(400, f"LFS pointer points to a file that does not exist: {sha256}")
        size = len(self.objects[sha256])
        pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        ).encode()
        oid = git_id("blob", pointer)
        return StoredFile(oid, size, sha256, self.xet_hashes.get(sha256), len(pointer))

    def read(self, file: StoredFile) -> bytes:
        """The bytes of a file."""
        return self.objects[file.key]

    def commit(
        self,
        repo: Repo,
        files: Mapping[str, StoredFile],
        *,
        branch: str,
        title: str,
        author: str,
        message: str = "",
    ) -> Commit:
        """Put a commit on top of a branch; its id is the one git would compute."""
        parent = repo.branches.get(branch)
        date = self.tick()
        stamp = f"{author} <{author}@users.noreply.huggingface.co> {int(date.timestamp())} +0000"
        lines = [f"tree {tree_id(files)}", *([f"parent {parent}"] if parent else [])]
        lines += [f"author {stamp}", f"committer {stamp}", "", title]
        lines += ["", message] if message else []
        id = git_id("commit", ("\n".join(lines) + "\n").encode())
        commit = Commit(id, parent, dict(files), author, date, title, message)
        repo.commits[id] = commit
        repo.branches[branch] = id
        return commit


def tree_id(files: Mapping[str, StoredFile]) -> str:
    """Git's id of the folder that holds `files`."""
    entries: dict[str, bytes] = {}
    folders: dict[str, dict[str, StoredFile]] = {}
    for path, file in files.items():
        name, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(name, {})[rest] = file
        else:
            entries[name] = f"100644 {name}\0".encode() + bytes.fromhex(file.oid)
    for name, inner in folders.items():
        entries[name + "/"] = f"40000 {name}\0".encode() + bytes.fromhex(tree_id(inner))
    return git_id("tree", b"".join(entries[name] for name in sorted(entries)))


def folders_of(paths: Iterable[str]) -> list[str]:
    """Every folder that the paths lie in."""
    found: set[str] = set()
    for path in paths:
        parts = path.split("/")[:-1]
        found.update("/".join(parts[: depth + 1]) for depth in range(len(parts)))
    return sorted(found - {""})
