"""Requests to a hub of Hugging Face's protocol that reading and pushing have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from softhub.errors import HubError, InvalidAdapter
from softhub.hub.names import is_commit
from softhub.hub.records import MAX_MESSAGE, plain
from softhub.hub.remote.connection import Connection
from softhub.hub.remote.download import RemoteFile
from softhub.hub.transfer import taken_message


@dataclass(frozen=True)
class RemoteCommit:
    """A commit with its tree.

    Attributes:
        repo_id: The repository.
        id: The commit's hash.
        date: When it was made, ISO 8601; empty if the hub does not say.
        files: What the tree lists, by name.
    """

    repo_id: str
    id: str
    date: str
    files: Mapping[str, RemoteFile]

    @property
    def origin(self) -> str:
        """The commit's name in messages."""
        return f"{self.repo_id}@{self.id}"


class LoggedCommit(NamedTuple):
    """One entry of a history; every field is checked to be text that is safe to print."""

    id: str
    title: str
    author: str
    date: str

    @classmethod
    def of(cls, record: Any) -> LoggedCommit:
        """Read the client's record of a commit.

        Raises:
            HubError: It names no commit.
        """
        commit = str(record.commit_id)
        if not is_commit(commit):
            raise HubError(f"the history names {plain(commit)!r}; expected the hash of a commit")
        authors = record.authors if isinstance(record.authors, list) else []
        author = plain(", ".join(name for name in authors if isinstance(name, str)))
        title = record.title if isinstance(record.title, str) else ""
        return cls(commit, plain(title, most=MAX_MESSAGE), author, iso_date(record.created_at))


class Refs(NamedTuple):
    """Branches and tags of a repository, each with its commit."""

    branches: Mapping[str, str]
    tags: Mapping[str, str]

    def tags_of(self, commit: str) -> tuple[str, ...]:
        """Return the tags of one commit."""
        return tuple(sorted(tag for tag, target in self.tags.items() if target == commit))

    def check_tag(self, repo_id: str, tag: str, commit: str | None) -> None:
        """Reject a tag that another commit (or any, if `commit` does not exist yet) already has.

        Raises:
            HubError: It is taken.
        """
        present = self.branches.get(tag) or self.tags.get(tag)
        if present and (tag in self.branches or present != commit):
            raise HubError(taken_message(repo_id, tag, present, is_branch=tag in self.branches))


class Client(Connection):
    """A connection with the questions that pulls, searches and pushes have in common."""

    def commit(self, repo_id: str, revision: str) -> RemoteCommit:
        """Resolve a revision once: the commit and its tree in one answer.

        Raises:
            InvalidAdapter: The hub names a commit that is not one, or not the requested one.
            HubError: The hub has no such revision, or does not answer.
        """
        model = self.read(
            lambda api: api.model_info(repo_id, revision=revision, files_metadata=True),
            f"{repo_id}@{revision}",
        )
        commit = str(model.sha)
        if not is_commit(commit) or (is_commit(revision) and commit != revision):
            raise InvalidAdapter(
                f"{self.endpoint} says that {repo_id}@{revision} is the commit "
                f"{plain(self.without_token(commit))!r}; expected the hash of that revision, so it "
                "is not used"
            )
        files = map(RemoteFile.of, model.siblings or ())
        tree = {file.name: file for file in files}
        return RemoteCommit(repo_id, commit, iso_date(model.last_modified), tree)

    def history(self, repo_id: str, revision: str) -> list[LoggedCommit]:
        """Return the commits of a revision, newest first."""
        return self.read(
            lambda api: [
                LoggedCommit.of(record)
                for record in api.list_repo_commits(repo_id, revision=revision)
            ],
            f"{repo_id}@{revision}",
        )

    def refs(self, repo_id: str) -> Refs:
        """Return branches and tags with their commits."""
        refs = self.read(lambda api: api.list_repo_refs(repo_id), repo_id)
        return Refs(_commits_by_name(refs.branches), _commits_by_name(refs.tags))

    def create_tag(self, repo_id: str, tag: str, commit: str, what: str) -> None:
        """Give a commit another name; `what` is what messages say was attempted."""
        self.write(
            lambda api: api.create_tag(repo_id, tag=tag, revision=commit, exist_ok=True), what
        )

    def whoami(self) -> str:
        """Return the name of the account that the token belongs to."""
        return plain(self.read(lambda api: str(api.whoami()["name"]), "whoami"))


def iso_date(date: Any) -> str:
    """Return a date of the client's as ISO 8601 with milliseconds; empty if there is none."""
    return date.isoformat(timespec="milliseconds") if date is not None else ""


def _commits_by_name(refs: Iterable[Any]) -> dict[str, str]:
    return {plain(str(ref.name)): str(ref.target_commit) for ref in refs}
