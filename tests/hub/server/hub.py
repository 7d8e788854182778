"""The hub behind the routes: its users, its rules of access, its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from .faults import Faults
from .store import LFS_PATTERNS, Commit, Repo, Store, StoredFile, User
from .wire import HubError, Request
from .xet import XetStorage

UPLOADS = ("regular", "lfs", "xet")


class Hub:
    """State that the routes share.

    Args:
        uploads: How files that `.gitattributes` gives to LFS are stored: "regular" (as any other
            file), "lfs", or "xet" (hf_xet against a local folder).
        large: Files of at least so many bytes are in LFS whatever their name (not in "regular").
        page: The most entries a page of a listing may hold.
    """

    def __init__(
        self, *, uploads: str = "regular", large: int = 10 << 20, page: int = 1000
    ) -> None:
        if uploads not in UPLOADS:
            raise ValueError(f"uploads must be one of {UPLOADS}, found {uploads!r}")
        self.uploads = uploads
        self.large = large
        self.page = page
        self.endpoint = self.cdn = self.elsewhere = ""
        self.store = Store()
        self.faults = Faults()
        self.users: dict[str, User] = {}
        self.requests: list[Request] = []
        self.moved: dict[str, str] = {}  # old name -> new name
        self.described: dict[str, dict[str, Any]] = {}  # by commit
        self.xet = XetStorage()

    def add_user(
        self, name: str, *, role: str = "write", organizations: tuple[str, ...] = ()
    ) -> str:
        """A new account; returns its token."""
        token = f"hf_{name}{len(self.users):02d}".ljust(37, "x")
        self.users[token] = User(name, token, role, organizations)
        return token

    def user(self, request: Request) -> User | None:
        """Who asks; None when nobody says.

        Raises:
            HubError: 401, the token is not one of ours.
        """
        if request.token is None:
            return None
        if request.token not in self.users:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.users[request.token]

    def signed_in(self, request: Request) -> User:
        """Who asks, which somebody must.

        Raises:
            HubError: 401.
        """
        user = self.user(request)
        if user is None:
            raise HubError(401, "Invalid username or password.")
        return user

    def readable(self, request: Request) -> Repo:
        """The repo that a request names, if the asker may know of it.

        A private repo of others and a repo that is not there look the same: 404 to a user,
        401 to anybody else. A repo that has moved is a redirect to its new name.

        Raises:
            HubError: RepoNotFound, or the redirect.
        """
        user = self.user(request)
        name = request.params["repo"]
        repo = self.store.repos.get(name)
        if repo is None and name in self.moved:
            where = request.path.replace(name, self.moved[name], 1)
            query = urlencode(request.query, doseq=True)
            raise HubError(307, headers={"Location": f"{where}?{query}" if query else where})
        if repo is None or not self.visible(repo, user):
            raise HubError(404 if user else 401, code="RepoNotFound")
        return repo

    def visible(self, repo: Repo, user: User | None) -> bool:
        """Whether a user, or anybody, may see a repo."""
        return not repo.private or (user is not None and user.owns(repo.namespace))

    def writable(self, request: Request) -> Repo:
        """The repo that a request names, if the asker may change it.

        Raises:
            HubError: RepoNotFound; 401 without a token; 403 with one that may not write here.
        """
        repo = self.readable(request)
        self.may_write(self.signed_in(request), repo.namespace)
        return repo

    def may_write(self, user: User, namespace: str) -> None:
        """Check that a user may write under a namespace, with this token.

        Raises:
            HubError: 403.
        """
        if user.role != "write":
            raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
        if not user.owns(namespace):
            raise HubError(403, "Authorization error.")

    def admit(self, request: Request, repo: Repo) -> None:
        """Check that the asker may read the files of a gated repo.

        Raises:
            HubError: GatedRepo, 401 without a token and 403 with one.
        """
        user = self.user(request)
        inside = user is not None and (user.owns(repo.namespace) or user.name in repo.admitted)
        if repo.gated and not inside:
            raise HubError(403 if user else 401, code="GatedRepo")

    def upload_mode(self, path: str, size: int) -> str:
        """Whether a file goes to LFS or is a regular blob."""
        large = size >= self.large or path.rpartition(".")[2] in LFS_PATTERNS
        return "lfs" if large and size and self.uploads != "regular" else "regular"

    def keep(self, path: str, data: bytes) -> StoredFile:
        """Store bytes as an upload of that path would be stored."""
        if self.upload_mode(path, len(data)) == "regular":
            return self.store.keep(data)
        return self.keep_lfs(data)

    def keep_lfs(self, data: bytes) -> StoredFile:
        """Store bytes in LFS, and under a xet hash where the hub is on xet."""
        file = self.store.keep_lfs(data)
        if self.uploads == "xet" and file.xet_hash is None:
            assert file.sha256 is not None
            self.store.xet_hashes[file.sha256] = self.xet.hash_of(data)
            return self.store.lfs_file(file.sha256)
        return file

    def seed(
        self,
        repo_id: str,
        files: Mapping[str, bytes],
        *,
        branch: str = "main",
        message: str = "Upload files",
        author: str | None = None,
        private: bool = False,
        tags: Sequence[str] = (),
    ) -> Commit:
        """Commit files without asking anybody, whatever their names: `../evil` is taken too.

        Makes the repo if there is none; tags the commit.
        """
        with self.store.lock:
            author = author or repo_id.partition("/")[0]
            repo = self.store.repos.get(repo_id) or self.store.create(
                repo_id, private=private, author=author
            )
            kept = {path: self.keep(path, data) for path, data in files.items()}
            commit = self.store.commit(
                repo,
                {**repo.commit(branch).files, **kept},
                branch=branch,
                title=message,
                author=author,
            )
            repo.tags.update(dict.fromkeys(tags, commit.id))
            return commit
