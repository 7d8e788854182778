"""A hub of Hugging Face's protocol, on huggingface.co or anywhere; the only caller of `HfApi`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softhub.adapter.layout import CONFIG, FILES, MANIFEST, PICKLED_WEIGHTS, WEIGHTS
from softhub.adapter.validation import check_files
from softhub.config import softhub_home
from softhub.errors import (
    HubAccessDenied,
    HubError,
    InvalidArtefact,
    RepositoryNotFound,
    RevisionNotFound,
    UnsupportedAdapter,
)
from softhub.hub.backend import Fetched, Push, taken_message
from softhub.hub.describe import DESCRIBING, describe, manifest_metrics
from softhub.hub.names import DEFAULT_REVISION, is_commit, repo_folder_name, repo_id_of
from softhub.hub.query import Query
from softhub.hub.records import MAX_MESSAGE, AdapterInfo, CommitInfo, plain
from softhub.hub.remote.connection import Connection
from softhub.hub.remote.download import RemoteFile, download
from softhub.hub.remote.download_cache import Kept
from softhub.hub.remote.push import RemotePush
from softhub.hub.remote.search_cache import DescribedCache

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SEARCHED = 1_000
"""Most repositories that are looked at for one search."""
PLAIN_SEARCHED = 100
"""Most of them that carry no mark of softhub's, newest first; each costs a request."""
_AT_ONCE = 8
_PROMPT_TUNING = b'"PROMPT_TUNING"'


class RemoteHub:
    """A hub behind an endpoint.

    Nothing is downloaded before its size is known to be small, kept before its hash and content
    are checked, or asked of a dead endpoint for longer than a few seconds.
    """

    is_remote = True

    def __init__(self, endpoint: str, token: str | None, *, offline: bool = False) -> None:
        """Prepare to talk to `endpoint`; nothing is sent yet."""
        self.connection = Connection(endpoint, token, offline=offline)
        self.kept = Kept(softhub_home().absolute(), endpoint)
        self.described = DescribedCache(softhub_home().absolute(), endpoint)

    def push(self, push: Push) -> CommitInfo:
        """Add a commit, or return the present one where nothing would change."""
        self.connection.check()
        return RemotePush(self, push).run()

    def fetch(self, repo_id: str, revision: str) -> Fetched:
        """Read one commit's files, each checked against the hub's tree."""
        if self.connection.is_offline:
            return self.kept.fetch(repo_id, revision)
        self.connection.check()
        model = self.model(repo_id, revision)
        origin = f"{repo_id}@{model.sha}"
        siblings = {str(sibling.rfilename): sibling for sibling in model.siblings or ()}
        if WEIGHTS not in siblings and PICKLED_WEIGHTS in siblings:
            raise UnsupportedAdapter(
                f"{origin} holds its weights as {PICKLED_WEIGHTS}, and unpickling runs code; "
                "ask its author to save it with safe_serialization=True"
            )
        listed = [RemoteFile.of(siblings[name], origin) for name in FILES if name in siblings]
        files = {file.name: self._file(repo_id, model.sha, file) for file in listed}
        self.kept.remember(repo_id, revision, model.sha)
        return Fetched(repo_id, model.sha, files)

    def keep(self, fetched: Fetched) -> Path:
        """Return the folder under softhub's home with what was fetched."""
        return self.kept.keep(fetched)

    def info(self, repo_id: str, revision: str) -> AdapterInfo:
        """Describe one revision; offline, what was pulled of it."""
        if self.connection.is_offline:
            kept = self.kept.fetch(repo_id, revision)
            total = sum(map(len, kept.files.values()))
            return describe(repo_id, kept.files, revision=kept.revision, total_bytes=total)
        self.connection.check()
        model = self.model(repo_id, revision)
        commits = self.connection.read(
            lambda: self.api.list_repo_commits(repo_id, revision=model.sha), repo_id
        )
        described = self._describe(model, tags=tuple(sorted(self.refs(repo_id)[1])))
        if not commits or described is None:
            raise InvalidArtefact(
                f"{repo_id}@{revision} holds no adapter; expected {WEIGHTS} and {CONFIG}"
            )
        return _with_commit(described, commits[0])

    def select(self, query: Query) -> list[AdapterInfo]:
        """Describe the newest `main` of every repository that matches."""
        self.connection.check()
        heads = self._candidates(query)
        described = self.described.known(heads)
        missing = [repo_id for repo_id in heads if repo_id not in described]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            asked = dict(zip(missing, pool.map(self._describe_main, missing), strict=True))
        self.described.keep(heads, asked)
        infos = [*described.values(), *asked.values()]
        return query.select(info for info in infos if info is not None)

    def log(self, repo_id: str, revision: str, limit: int) -> list[CommitInfo]:
        """Return the history, newest first, with the metrics of each commit that has any."""
        self.connection.check()
        what = f"{repo_id}@{revision}"
        commits = self.connection.read(
            lambda: self.api.list_repo_commits(repo_id, revision=revision), what
        )
        tags = self.refs(repo_id)[1]
        parents = [*(str(commit.commit_id) for commit in commits[1:]), None]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            shown = commits[:limit]
            models = list(pool.map(lambda c: self.model(repo_id, str(c.commit_id)), shown))
            metrics = list(pool.map(self._metrics, models))
        return [
            self._commit_info(repo_id, commit, parent, tags, model, measured)
            for commit, parent, model, measured in zip(
                shown, parents, models, metrics, strict=False
            )
        ]

    def tag(self, repo_id: str, tag: str, revision: str) -> str:
        """Give a commit another name; an equal tag is no error.

        Raises:
            HubError: The name already belongs to another commit, or to a branch.
        """
        self.connection.check()
        commit = str(self.model(repo_id, revision).sha)
        self.check_tag(repo_id, tag, commit, *self.refs(repo_id))
        self.connection.write(
            lambda: self.api.create_tag(repo_id, tag=tag, revision=commit, exist_ok=True),
            f"tag {tag} of {repo_id}",
        )
        return commit

    def untag(self, repo_id: str, tag: str) -> None:
        """Remove a tag; the commit stays.

        Raises:
            RevisionNotFound: There is no such tag.
        """
        self.connection.check()
        tags = self.refs(repo_id)[1]
        if tag not in tags:
            raise RevisionNotFound(
                f"{repo_id} has no tag {tag!r}; it has {', '.join(sorted(tags)) or 'none'}"
            )
        self.connection.write(lambda: self.api.delete_tag(repo_id, tag=tag), repo_id)

    def delete(self, repo_id: str) -> None:
        """Remove a repository with its whole history."""
        self.connection.check()
        self.connection.write(lambda: self.api.delete_repo(repo_id), repo_id)

    def verify(self, repo_id: str) -> dict[str, str | None]:
        """Fetch and check every commit with an adapter that a branch or tag reaches."""
        self.connection.check()
        branches, tags = self.refs(repo_id)
        commits: dict[str, None] = {}
        for head in {*branches.values(), *tags.values()}:
            listed = self.connection.read(
                lambda head=head: self.api.list_repo_commits(repo_id, revision=head),  # type: ignore[misc]
                repo_id,
            )
            commits.update(dict.fromkeys(str(commit.commit_id) for commit in listed))
        verdicts = {commit: self._verdict(repo_id, commit) for commit in commits}
        return {c: verdict for c, verdict in verdicts.items() if verdict != _NO_ADAPTER}

    def whoami(self) -> str:
        """Return the account's name.

        Raises:
            HubAccessDenied: There is no token, or the hub does not know it.
        """
        self.connection.check()
        if self.connection.token is False:
            raise HubAccessDenied(f"whoami needs a token; {self.connection.login_hint()}")
        return plain(self.connection.read(lambda: str(self.api.whoami()["name"]), "whoami"))

    @property
    def api(self) -> HfApi:
        """The client, with this hub's endpoint and token and no other."""
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.connection.endpoint, token=self.connection.token)

    def model(self, repo_id: str, revision: str) -> Any:
        """Resolve a revision once: the commit and its tree in one answer."""
        model = self.connection.read(
            lambda: self.api.model_info(repo_id, revision=revision, files_metadata=True),
            f"{repo_id}@{revision}",
        )
        commit = str(model.sha)
        if not is_commit(commit) or (is_commit(revision) and commit != revision):
            raise InvalidArtefact(
                f"{self.connection.endpoint} says that {repo_id}@{revision} is the commit "
                f"{plain(commit)!r}; expected a hash that belongs to it, so it is not used"
            )
        return model

    def refs(self, repo_id: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return branches and tags with their commits."""
        refs = self.connection.read(lambda: self.api.list_repo_refs(repo_id), repo_id)
        return _commits_by_name(refs.branches), _commits_by_name(refs.tags)

    def check_tag(
        self,
        repo_id: str,
        tag: str,
        commit: str | None,
        branches: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> None:
        """Refuse a tag that another commit (or any, if `commit` is yet to come) already has.

        Raises:
            HubError: It is taken.
        """
        if tag in branches or tags.get(tag, commit) != commit or (commit is None and tag in tags):
            present = branches.get(tag) or tags[tag]
            raise HubError(taken_message(repo_id, tag, present, is_branch=tag in branches))

    def _file(self, repo_id: str, commit: str, file: RemoteFile) -> bytes:
        """Return a file from what was kept, if it is what the tree lists, or download it."""
        kept = self.kept.file(repo_id, commit, file.name)
        if kept is not None and file.matches(kept):
            return kept
        return download(self.connection, repo_id, commit, file)

    def _describe_main(self, repo_id: str) -> AdapterInfo | None:
        """Describe a search's candidate; None if it went away, or is another kind of adapter."""
        try:
            model = self.model(repo_id, DEFAULT_REVISION)
            return self._describe(model, tags=())
        except (RepositoryNotFound, RevisionNotFound):
            return None
        except (HubError, InvalidArtefact) as error:
            owner = repo_id.split("/")[0]
            return AdapterInfo(repo_id, "", author=owner, unchecked=plain(str(error)))

    def _describe(self, model: Any, tags: tuple[str, ...]) -> AdapterInfo | None:
        siblings = {str(sibling.rfilename): sibling for sibling in model.siblings or ()}
        if WEIGHTS not in siblings or CONFIG not in siblings:
            return None
        files = self._described_files(str(model.id), model, siblings)
        if MANIFEST not in files and _PROMPT_TUNING not in files[CONFIG]:
            return None
        weights = siblings[WEIGHTS]
        return describe(
            str(model.id),
            files,
            revision=str(model.sha),
            tags=tags,
            total_bytes=sum(_size(siblings[name]) for name in FILES if name in siblings),
            weights_sha256=weights.lfs.sha256 if weights.lfs else _manifest_hash(files),
            date=_iso(model.last_modified),
        )

    def _described_files(
        self, repo_id: str, model: Any, siblings: Mapping[str, Any]
    ) -> dict[str, bytes]:
        names = [name for name in DESCRIBING if name in siblings]
        listed = [RemoteFile.of(siblings[name], f"{repo_id}@{model.sha}") for name in names]
        return {file.name: self._file(repo_id, str(model.sha), file) for file in listed}

    def _candidates(self, query: Query) -> dict[str, str]:
        """Name what is worth a look, with its commit: softhub's by tags, plain PEFT's newest."""
        marked = self._heads({**_server_filters(query), "limit": SEARCHED})
        if query.task or query.task_kind or query.metric or query.dataset:
            return marked
        plain_filters = ["peft", *_base_filter(query)]
        plain_peft = self._heads(
            {"filter": plain_filters, "author": query.author, "limit": PLAIN_SEARCHED}
        )
        return {**marked, **plain_peft}

    def _heads(self, search: dict[str, Any]) -> dict[str, str]:
        def call() -> dict[str, str]:
            models: Iterable[Any] = self.api.list_models(**search, sort="last_modified", full=True)
            return {str(model.id): str(model.sha) for model in islice(models, search["limit"])}

        found = self.connection.read(call, "the search")
        return {name: sha for name, sha in found.items() if repo_id_of(repo_folder_name(name))}

    def _metrics(self, model: Any) -> Any:
        siblings = {str(sibling.rfilename): sibling for sibling in model.siblings or ()}
        if MANIFEST not in siblings:
            return ()
        with suppress(InvalidArtefact):
            file = RemoteFile.of(siblings[MANIFEST], str(model.id))
            data = self._file(str(model.id), str(model.sha), file)
            return manifest_metrics({MANIFEST: data})
        return ()

    def _commit_info(
        self,
        repo_id: str,
        commit: Any,
        parent: str | None,
        tags: Mapping[str, str],
        model: Any,
        metrics: Any,
    ) -> CommitInfo:
        weights = next((s for s in model.siblings or () if s.rfilename == WEIGHTS), None)
        name = str(commit.commit_id)
        return CommitInfo(
            repo_id=repo_id,
            revision=name,
            parent=parent,
            author=plain(", ".join(commit.authors)),
            date=_iso(commit.created_at),
            message=plain(commit.title, most=MAX_MESSAGE),
            tags=tuple(sorted(tag for tag, target in tags.items() if target == name)),
            metrics=metrics,
            weights_sha256=weights.lfs.sha256 if weights and weights.lfs else None,
        )

    def _verdict(self, repo_id: str, commit: str) -> str | None:
        try:
            fetched = self.fetch(repo_id, commit)
            if WEIGHTS not in fetched.files and CONFIG not in fetched.files:
                return _NO_ADAPTER
            check_files(fetched.files, origin=f"{repo_id}@{commit}")
            return None
        except InvalidArtefact as error:
            return str(error)


_NO_ADAPTER = "no adapter in this commit"


def _server_filters(query: Query) -> dict[str, Any]:
    """Leave to the hub what its tags can tell; the rest is filtered here."""
    tags = ["peft", "soft-prompt", *_base_filter(query)]
    if query.license:
        tags.append(f"license:{query.license.lower()}")
    return {"filter": tags, "author": query.author}


def _base_filter(query: Query) -> list[str]:
    named = query.base_model is not None and "/" in query.base_model
    return [f"base_model:adapter:{query.base_model}"] if named else []


def _with_commit(info: AdapterInfo, commit: Any) -> AdapterInfo:
    from dataclasses import replace

    message = plain(commit.title, most=MAX_MESSAGE)
    return replace(info, date=_iso(commit.created_at), message=message)


def _commits_by_name(refs: Iterable[Any]) -> dict[str, str]:
    return {plain(str(ref.name)): str(ref.target_commit) for ref in refs}


def _manifest_hash(files: Mapping[str, bytes]) -> str | None:
    from softhub.adapter.manifest import Manifest

    with suppress(InvalidArtefact, KeyError):
        return Manifest.from_bytes(files[MANIFEST]).files.get(WEIGHTS)
    return None


def _size(sibling: Any) -> int:
    return sibling.size if isinstance(sibling.size, int) and sibling.size > 0 else 0


def _iso(date: Any) -> str:
    return date.isoformat(timespec="milliseconds") if date is not None else ""
