"""A hub of Hugging Face's protocol, on huggingface.co or any other endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from softhub.adapter.adapter import METHODS, Adapter
from softhub.adapter.layout import CONFIG, FILES, MANIFEST, PICKLED_WEIGHTS, WEIGHTS
from softhub.adapter.validation import check_adapter
from softhub.config import softhub_home
from softhub.errors import (
    HubAccessDenied,
    HubError,
    InvalidAdapter,
    RepositoryNotFound,
    RevisionNotFound,
    UnsupportedAdapter,
)
from softhub.hub.describe import DESCRIBING, describe, recorded_metrics
from softhub.hub.names import DEFAULT_REVISION, is_commit, repo_folder_name, repo_id_of
from softhub.hub.query import Query
from softhub.hub.records import AdapterInfo, CommitInfo, plain
from softhub.hub.remote.client import Client, LoggedCommit, Refs, RemoteCommit
from softhub.hub.remote.download import download
from softhub.hub.remote.download_cache import DownloadCache
from softhub.hub.remote.push import RemotePush
from softhub.hub.remote.search_cache import SearchCache
from softhub.hub.transfer import Fetched, Push, missing_tag_message

MAX_SEARCHED = 1_000
"""Maximum number of repositories that one search considers."""
MAX_UNMARKED_SEARCHED = 100
"""Maximum of those without softhub's tags, newest first; each costs a request."""
_THREADS = 8
_METHODS = tuple(f'"{name}"'.encode() for name in METHODS)
_NO_ADAPTER = "no adapter in this commit"


class RemoteHub:
    """A hub behind an endpoint.

    Nothing is downloaded before its size is known to be small, stored before its hash and content
    are checked, or requested from an endpoint that does not answer for more than a few seconds.
    """

    is_remote = True

    def __init__(self, endpoint: str, token: str | None, *, offline: bool = False) -> None:
        """Prepare to talk to `endpoint`; nothing is sent yet."""
        self.client = Client(endpoint, token, offline=offline)
        self.download_cache = DownloadCache(softhub_home().absolute(), endpoint)
        self.search_cache = SearchCache(softhub_home().absolute(), endpoint)

    def push(self, push: Push) -> CommitInfo:
        """Add a commit, or return the present one where nothing would change."""
        return RemotePush(self.client, push).run()

    def fetch(self, repo_id: str, revision: str) -> Fetched:
        """Read one commit's files, each checked against the hub's tree."""
        if self.client.is_offline:
            return self.download_cache.fetch(repo_id, revision)
        commit = self.client.commit(repo_id, revision)
        if WEIGHTS not in commit.files and PICKLED_WEIGHTS in commit.files:
            raise UnsupportedAdapter(
                f"{commit.origin} contains its weights as {PICKLED_WEIGHTS}, and unpickling runs "
                "code; ask its author to save it with safe_serialization=True"
            )
        return Fetched(repo_id, commit.id, self._adapter(commit, FILES))

    def config(self, repo_id: str, revision: str) -> Mapping[str, Any]:
        """Return a commit's `adapter_config.json`; empty if it has none."""
        return self._adapter(self.client.commit(repo_id, revision), (CONFIG,)).config

    def to_folder(self, fetched: Fetched, revision: str) -> Path:
        """Store the fetched files under softhub's home, for offline use of `revision`, too."""
        folder = self.download_cache.store(fetched)
        self.download_cache.set_ref(fetched.repo_id, revision, fetched.revision)
        return folder

    def info(self, repo_id: str, revision: str) -> AdapterInfo:
        """Describe one revision; offline, use the pulled files."""
        if self.client.is_offline:
            found = self.download_cache.fetch(repo_id, revision)
            total = found.adapter.total_bytes
            return describe(repo_id, found.adapter, revision=found.revision, total_bytes=total)
        commit = self.client.commit(repo_id, revision)
        history = self.client.history(repo_id, commit.id)
        info = self._describe(commit, tags=tuple(sorted(self.client.refs(repo_id).tags)))
        if not history or info is None:
            raise InvalidAdapter(
                f"{repo_id}@{revision} contains no adapter; expected {WEIGHTS} and {CONFIG}"
            )
        return replace(info, date=history[0].date, message=history[0].title)

    def select(self, query: Query) -> list[AdapterInfo]:
        """Describe the newest commit, as the hub lists it, of every repository that matches."""
        heads = self._candidates(query)
        known = self.search_cache.lookup(heads)
        missing = [repo_id for repo_id in heads if repo_id not in known]
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda repo_id: self._describe_head(repo_id, heads[repo_id]), missing)
            new = dict(zip(missing, found, strict=True))
        self.search_cache.store(heads, new)
        return query.select(info for info in (known | new).values() if info is not None)

    def log(self, repo_id: str, revision: str, limit: int) -> list[CommitInfo]:
        """Return the history, newest first, with the metrics of each commit that has any."""
        history = self.client.history(repo_id, revision)
        refs = self.client.refs(repo_id)
        parents = [*(entry.id for entry in history[1:]), None]
        shown = zip(history[:limit], parents, strict=False)
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(lambda pair: self._commit_info(repo_id, refs, *pair), shown))

    def tag(self, repo_id: str, tag: str, revision: str) -> str:
        """Give a commit another name; an equal tag is not an error."""
        commit = self.client.commit(repo_id, revision).id
        self.client.refs(repo_id).check_tag(repo_id, tag, commit)
        self.client.create_tag(repo_id, tag, commit, f"tag {tag} of {repo_id}")
        return commit

    def untag(self, repo_id: str, tag: str) -> None:
        """Remove a tag; the commit stays."""
        tags = self.client.refs(repo_id).tags
        if tag not in tags:
            raise RevisionNotFound(missing_tag_message(repo_id, tag, tags))
        self.client.write(lambda api: api.delete_tag(repo_id, tag=tag), repo_id)

    def delete(self, repo_id: str) -> None:
        """Remove a repository and its history."""
        self.client.write(lambda api: api.delete_repo(repo_id), repo_id)

    def verify(self, repo_id: str) -> dict[str, str | None]:
        """Fetch and check every commit with an adapter that a branch or tag reaches."""
        refs = self.client.refs(repo_id)
        heads = {*refs.branches.values(), *refs.tags.values()}
        listed = [entry for head in heads for entry in self.client.history(repo_id, head)]
        commits = dict.fromkeys(entry.id for entry in listed)
        results = {commit: self._verify(repo_id, commit) for commit in commits}
        return {commit: result for commit, result in results.items() if result != _NO_ADAPTER}

    def whoami(self) -> str:
        """Return the account's name."""
        if self.client.token is False and not self.client.is_offline:
            raise HubAccessDenied(f"whoami requires a token; {self.client.login_hint()}")
        return self.client.whoami()

    def _adapter(self, commit: RemoteCommit, names: Sequence[str]) -> Adapter:
        """Return those files of a commit that exist, from the cache or else from the hub."""
        files = {}
        for file in (commit.files[name] for name in names if name in commit.files):
            cached = self.download_cache.file(commit.repo_id, commit.id, file.name)
            if cached is None or not file.matches(cached):
                cached = download(self.client, commit.repo_id, commit.id, file)
            files[file.name] = cached
        return Adapter(files, commit.origin)

    def _describe_head(self, repo_id: str, head: str) -> AdapterInfo | None:
        """Describe a search's candidate; None if it is gone, or is another kind of adapter.

        Args:
            repo_id: The repository.
            head: The commit that the hub lists for it, which need not be on `main`.
        """
        revision = head if is_commit(head) else DEFAULT_REVISION
        try:
            return self._describe(self.client.commit(repo_id, revision), tags=())
        except (RepositoryNotFound, RevisionNotFound):
            return None
        except (HubError, InvalidAdapter) as error:
            owner = repo_id.split("/")[0]
            return AdapterInfo(repo_id, "", author=owner, unchecked=plain(str(error)))

    def _describe(self, commit: RemoteCommit, tags: tuple[str, ...]) -> AdapterInfo | None:
        if WEIGHTS not in commit.files or CONFIG not in commit.files:
            return None
        adapter = self._adapter(commit, DESCRIBING)
        config = adapter.files[CONFIG]
        if MANIFEST not in adapter.files and not any(name in config for name in _METHODS):
            return None
        sizes = (commit.files[name].size or 0 for name in FILES if name in commit.files)
        return describe(
            commit.repo_id,
            adapter,
            revision=commit.id,
            tags=tags,
            total_bytes=sum(size for size in sizes if size > 0),
            weights_sha256=commit.files[WEIGHTS].sha256 or _recorded_sha256(adapter),
            date=commit.date,
        )

    def _candidates(self, query: Query) -> dict[str, str]:
        """Return the repositories with softhub's or PEFT's tags, and their commits."""
        base = query.base_model or ""
        of_base = [f"base_model:adapter:{base}"] if "/" in base else []
        licensed = [f"license:{query.license.lower()}"] if query.license else []
        marked = self._heads(["peft", "soft-prompt", *of_base, *licensed], query, MAX_SEARCHED)
        if query.task or query.task_kind or query.metric or query.dataset:
            return marked  # only a manifest says these
        return marked | self._heads(["peft", *of_base], query, MAX_UNMARKED_SEARCHED)

    def _heads(self, tags: list[str], query: Query, limit: int) -> dict[str, str]:
        def newest(api: Any) -> dict[str, str]:
            models: Iterable[Any] = api.list_models(
                filter=tags, author=query.author, limit=limit, sort="last_modified", full=True
            )
            return {str(model.id): str(model.sha) for model in islice(models, limit)}

        found = self.client.read(newest, "the search")
        return {name: sha for name, sha in found.items() if repo_id_of(repo_folder_name(name))}

    def _commit_info(
        self, repo_id: str, refs: Refs, entry: LoggedCommit, parent: str | None
    ) -> CommitInfo:
        commit = self.client.commit(repo_id, entry.id)
        metrics: Any = ()
        with suppress(InvalidAdapter):
            metrics = recorded_metrics(self._adapter(commit, [MANIFEST]))
        return CommitInfo(
            repo_id=repo_id,
            revision=commit.id,
            parent=parent,
            author=entry.author,
            date=entry.date,
            message=entry.title,
            tags=refs.tags_of(commit.id),
            metrics=metrics,
            weights_sha256=commit.files[WEIGHTS].sha256 if WEIGHTS in commit.files else None,
        )

    def _verify(self, repo_id: str, commit: str) -> str | None:
        try:
            fetched = self.fetch(repo_id, commit)
            if WEIGHTS not in fetched.adapter.files and CONFIG not in fetched.adapter.files:
                return _NO_ADAPTER
            check_adapter(fetched.adapter)
            return None
        except InvalidAdapter as error:
            return str(error)


def _recorded_sha256(adapter: Adapter) -> str | None:
    with suppress(InvalidAdapter):
        return adapter.manifest.files.get(WEIGHTS) if adapter.manifest else None
    return None
