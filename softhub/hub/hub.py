"""`Hub`: one interface to the hub on this disk and to every endpoint of Hugging Face's protocol."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softhub.adapter.adapter import Adapter
from softhub.adapter.front_matter import DEPRECATED, add_to_front_matter
from softhub.adapter.layout import CARD, write_atomically
from softhub.adapter.validation import (
    check_adapter,
    check_files,
    check_folder,
    check_interrupted_save,
)
from softhub.errors import HubError, InvalidAdapter
from softhub.hub.arguments import (
    check_push_names,
    count_argument,
    path_argument,
    references_argument,
    repo_id_argument,
    revision_argument,
    text_argument,
    text_arguments,
)
from softhub.hub.describe import describe
from softhub.hub.diff import Difference, diff
from softhub.hub.local.disk import os_errors_as_hub_errors
from softhub.hub.lockfile import LockedPrompt, add_to_lockfile, existing_prompts, read_lockfile
from softhub.hub.names import DEFAULT_REVISION, HubAddress, check_revision_name, split_reference
from softhub.hub.notices import warn_if_deprecated, warn_of_another_base
from softhub.hub.query import Query
from softhub.hub.records import AdapterInfo, CommitInfo, plain
from softhub.hub.secrets import check_secrets
from softhub.hub.transfer import Fetched, Push

if TYPE_CHECKING:
    from softhub.hub.local.local_hub import LocalHub
    from softhub.hub.remote.remote_hub import RemoteHub

Listing = list[AdapterInfo]
History = list[CommitInfo]
Locked = dict[str, LockedPrompt]
Similar = list[tuple[AdapterInfo, float]]


class Hub:
    """Push, pull and find soft prompts.

    >>> hub = Hub()                                   # the hub on this disk
    >>> hub.push("runs/sentiment/adapter", "me/sentiment", tags=["v1"])     # doctest: +SKIP
    >>> folder = hub.pull("me/sentiment", revision="v1")                    # doctest: +SKIP

    Attributes:
        uri: The hub's address.
    """

    def __init__(
        self, uri: str | None = None, *, token: str | None = None, offline: bool = False
    ) -> None:
        """Open a hub; nothing is read or contacted yet.

        Args:
            uri: `local`, `local:FOLDER`, `hf` or `hf+https://HOST`; None for `$SOFTHUB_HUB`, or
                else `local`.
            token: Access token for a remote hub; None for the one that `softhub login` stores,
                which is sent to huggingface.co only.
            offline: Use only what was pulled before from a remote hub.

        Raises:
            HubError: The address is not valid, or the folder is Hugging Face's download cache.
        """
        address = HubAddress.parse(uri)
        self.uri = address.uri
        self._backend = _backend(address, token, offline)

    def __repr__(self) -> str:
        """Show the address; never the token."""
        return f"Hub({self.uri!r})"

    def push(
        self,
        folder: str | Path,
        repo_id: str,
        *,
        revision: str = DEFAULT_REVISION,
        message: str | None = None,
        tags: Sequence[str] = (),
        private: bool = False,
        parent_commit: str | None = None,
    ) -> CommitInfo:
        """Publish an adapter folder as one commit.

        Args:
            folder: The adapter; only the files of an adapter are read from it.
            repo_id: `namespace/name`; created if it does not exist.
            revision: Branch to move.
            message: The commit's message; shown by `log`.
            tags: Names for the new commit, such as `v1`.
            private: Make a new repository private (remote hubs).
            parent_commit: Refuse unless the branch still names this commit.

        Returns:
            The commit; `created` is False where the hub already had exactly this content.

        Raises:
            InvalidAdapter: The folder is not a valid adapter, or contains a token or a path.
            PushConflict: Another push came first.
            HubError: Any other reason, with the next step.
        """
        names = text_arguments("tags", tags)
        texts = {} if message is None else {"the message": text_argument("message", message)}
        check_push_names(repo_id, text_argument("revision", revision), names)
        adapter = check_folder(path_argument("folder", folder))
        self._check_secrets(adapter.files, texts | {f"the tag {name}": name for name in names})
        push = Push(repo_id, adapter, revision, message, names, private, parent_commit)
        commit = self._backend.push(push)
        if commit.created and commit.parent:
            warn_of_another_base(self._backend, adapter, commit)
        return commit

    def pull(
        self,
        repo_id: str,
        *,
        revision: str = DEFAULT_REVISION,
        local_dir: str | Path | None = None,
        expect_sha256: str | None = None,
    ) -> Path:
        """Return a folder with an adapter, after checking all of it.

        Args:
            repo_id: `namespace/name`.
            revision: Branch, tag or full commit hash.
            local_dir: Copy the adapter there as well; it appears complete or not at all.
            expect_sha256: SHA-256 that the weights file must have.

        Returns:
            `local_dir`, or else the hub's own folder, which must not be modified.

        Raises:
            RepositoryNotFound: There is no such repository.
            RevisionNotFound: It has no such revision.
            InvalidAdapter: The adapter is damaged, hostile, or has another hash.
        """
        target = None if local_dir is None else path_argument("local_dir", local_dir)
        adapter, folder = self._pulled(repo_id, revision, expect_sha256)
        if target is None:
            return folder
        with os_errors_as_hub_errors(f"copying {repo_id} to {target}"):
            return write_atomically(target, adapter.files)

    def read(self, repo_id: str, *, revision: str = DEFAULT_REVISION) -> Adapter:
        """Return an adapter in memory, checked as by `pull`.

        `SoftPrompt.from_adapter` takes it; its files are then neither read nor checked again.

        Args:
            repo_id: `namespace/name`.
            revision: Branch, tag or full commit hash.

        Raises:
            RepositoryNotFound: There is no such repository.
            RevisionNotFound: It has no such revision.
            InvalidAdapter: The adapter is damaged or hostile.
        """
        return self._pulled(repo_id, revision)[0]

    def lock(self, path: str | Path, prompts: Mapping[str, str]) -> Locked:
        """Add prompts to a lock file, each pinned to its commit and to the hash of its weights.

        Args:
            path: The lock file, such as `softhub.lock`; created if it does not exist.
            prompts: `namespace/name` or `namespace/name@revision` by the name to use it under.

        Returns:
            All prompts that the file now contains.

        Raises:
            HubError: A prompt does not exist, or the file cannot be read or written.
            InvalidAdapter: A prompt is damaged.
        """
        file = path_argument("path", path)
        existing_prompts(file)  # a damaged file is refused before anything is downloaded
        new = {}
        for name, reference in references_argument("prompts", prompts).items():
            repo_id, revision = split_reference(reference)
            fetched = self._fetch(repo_id, revision or DEFAULT_REVISION)
            weights_sha256 = check_adapter(fetched.adapter).weights_sha256
            new[name] = LockedPrompt(repo_id, fetched.revision, weights_sha256)
        return add_to_lockfile(file, new)

    def pull_locked(
        self, path: str | Path, *, local_dir: str | Path | None = None
    ) -> dict[str, Path]:
        """Pull every prompt of a lock file, and refuse any that is not exactly the locked one.

        Args:
            path: The lock file.
            local_dir: Copy each adapter to a subfolder with its name.

        Returns:
            Folders by name.

        Raises:
            InvalidAdapter: A locked commit has other weights on the hub.
        """
        target = None if local_dir is None else path_argument("local_dir", local_dir)
        return {
            name: self.pull(
                prompt.repo_id,
                revision=prompt.revision,
                local_dir=target and target / name,
                expect_sha256=prompt.weights_sha256,
            )
            for name, prompt in read_lockfile(path_argument("path", path)).items()
        }

    def list(self, **filters: Any) -> Listing:
        """Return every adapter that matches the filters, sorted by name.

        Args:
            **filters: Fields of `Query`: `task`, `task_kind`, `prompt_type`, `base_model`, `tag`,
                `author`, `language`, `license`, `dataset`, `metric`, `min_score`, `fingerprint`,
                `text`, `sort`, `limit`.

        Raises:
            HubError: There is no such filter.
        """
        return self._backend.select(Query.of(**filters))

    def info(self, repo_id: str, *, revision: str = DEFAULT_REVISION) -> AdapterInfo:
        """Describe one revision of an adapter, with weaker checks than `pull` makes.

        Args:
            repo_id: `namespace/name`.
            revision: Branch, tag or full commit hash.

        Returns:
            The description; `unchecked` says what could not be checked.

        Raises:
            RepositoryNotFound: There is no such repository.
            RevisionNotFound: It has no such revision.
        """
        revision_argument(revision, is_remote=self._backend.is_remote)
        return self._backend.info(repo_id_argument(repo_id), revision)

    def search(self, text: str | None = None, **filters: Any) -> Listing:
        """Return the adapters whose name, task, base or card contain all words, best score first.

        Args:
            text: Words, in any case and order; None for all adapters.
            **filters: As for `list`; `sort` is `score` and `limit` 50 unless given.

        Raises:
            HubError: There is no such filter.
        """
        return self.list(**{"text": text, "sort": "score", "limit": 50, **filters})

    def leaderboard(
        self, task: str, *, metric: str | None = None, dataset: str | None = None
    ) -> Listing:
        """Return all scored adapters of a task (and dataset), best first, by recorded metrics.

        Scores are the publishers' own; nothing is measured again.
        """
        found = self.list(task=task, metric=metric, dataset=dataset, sort="score")
        return [info for info in found if info.metrics]

    def log(self, repo_id: str, *, revision: str = DEFAULT_REVISION, limit: int = 50) -> History:
        """Return the history of a revision, newest first, with the metrics of each commit."""
        revision_argument(revision, is_remote=self._backend.is_remote)
        return self._backend.log(
            repo_id_argument(repo_id), revision, count_argument("limit", limit)
        )

    def diff(self, repo_id: str, old: str, new: str = DEFAULT_REVISION) -> Difference:
        """Compare two revisions: config, manifest, metrics and vectors.

        Args:
            repo_id: `namespace/name`.
            old: The earlier revision.
            new: The later revision.

        Returns:
            The changes.

        Raises:
            RevisionNotFound: One of them does not exist.
        """
        return diff(self._fetch(repo_id, old), self._fetch(repo_id, new))

    def tag(self, repo_id: str, tag: str, *, revision: str = DEFAULT_REVISION) -> str:
        """Give a commit a name and return the commit; repeating the same tag is not an error.

        Raises:
            HubError: The name belongs to another commit.
        """
        revision_argument(revision, is_remote=self._backend.is_remote)
        name = check_revision_name(text_argument("tag", tag))
        self._check_secrets({}, {"the tag": name})
        return self._backend.tag(repo_id_argument(repo_id), name, revision)

    def untag(self, repo_id: str, tag: str) -> None:
        """Remove a tag; the commit stays.

        Raises:
            RevisionNotFound: There is no such tag.
        """
        self._backend.untag(
            repo_id_argument(repo_id), check_revision_name(text_argument("tag", tag))
        )

    def deprecate(self, repo_id: str, *, reason: str, replacement: str | None = None) -> CommitInfo:
        """Mark a repository as deprecated; pulls warn, and nothing is removed.

        The mark is a commit that adds `softhub_deprecated` to the card of `main`; pushing a card
        without it removes the mark.

        Args:
            repo_id: The repository.
            reason: Why, in one sentence.
            replacement: Repository to use instead.

        Returns:
            The commit with the mark.

        Raises:
            HubError: There is no reason, or the replacement is the repository itself.
        """
        notice = {"reason": plain(text_argument("reason", reason))}
        if not notice["reason"]:
            raise HubError("a deprecation requires a reason: one sentence, which pulls will show")
        if replacement is not None:
            notice["replacement"] = repo_id_argument(replacement)
        if replacement == repo_id:
            raise HubError(f"{repo_id} cannot be replaced by itself; name another repository")
        fetched = self._fetch(repo_id, DEFAULT_REVISION)
        old = fetched.adapter
        card = add_to_front_matter(old.files.get(CARD, b""), DEPRECATED, notice)
        marked = check_files({**old.files, CARD: card}, origin=old.origin)
        message = f"Deprecate: {notice['reason']}"
        self._check_secrets(marked.files, {"the reason": message})
        return self._backend.push(
            Push(repo_id, marked, DEFAULT_REVISION, message, parent_commit=fetched.revision)
        )

    def delete(self, repo_id: str) -> None:
        """Remove a repository with its history permanently; consider `deprecate` instead."""
        self._backend.delete(repo_id_argument(repo_id))

    def verify(self, repo_id: str) -> dict[str, str | None]:
        """Check every commit that can be reached: hashes, files and numbers.

        Returns:
            For each commit None, or a description of the problem.
        """
        return self._backend.verify(repo_id_argument(repo_id))

    def similar(self, prompt: str | Path, *, limit: int = 10) -> Similar:
        """Rank prompts of the same base and type by the similarity of their vectors, as SPoT does.

        This is a heuristic: similar vectors often mean that one prompt is a good initialization
        for training the other's task, and sometimes do not. Try the best few and let the score on
        the dev split decide.

        Args:
            prompt: An adapter's folder, or a repository of this hub.
            limit: Maximum number of results.

        Returns:
            Adapters with their similarity, between -1 and 1, most similar first.

        Raises:
            InvalidAdapter: The prompt is damaged, or does not name its base model.
            RepositoryNotFound: There is no such folder or repository.
        """
        from softhub.hub.vectors import similarity_of

        most, own = count_argument("limit", limit), self._adapter(prompt)
        base = describe("this/prompt", own, revision="").base_model
        if base is None:
            raise InvalidAdapter(f"{prompt} does not name its base model, so it cannot be compared")
        ranked = []
        for info in self.list(base_model=base):
            if info.repo_id == str(prompt):
                continue
            with suppress(InvalidAdapter, HubError):
                score = similarity_of(own, self._fetch(info.repo_id, DEFAULT_REVISION).adapter)
                if score is not None:
                    ranked.append((info, score))
        ranked.sort(key=lambda pair: (-pair[1], pair[0].repo_id))
        return ranked[:most]

    def whoami(self) -> str:
        """Return the name under which pushes appear."""
        return self._backend.whoami()

    def _adapter(self, prompt: str | Path) -> Adapter:
        """Return the adapter in a folder or a repository, checked."""
        path = path_argument("prompt", prompt)
        if os.path.isdir(path):  # noqa: PTH112  # that of Path raises for a name that is too long
            return check_folder(path)
        check_interrupted_save(path)
        return check_adapter(self._fetch(str(prompt), DEFAULT_REVISION).adapter)

    def _fetch(self, repo_id: str, revision: str) -> Fetched:
        revision_argument(revision, is_remote=self._backend.is_remote)
        return self._backend.fetch(repo_id_argument(repo_id), revision)

    def _pulled(
        self, repo_id: str, revision: str, expect_sha256: str | None = None
    ) -> tuple[Adapter, Path]:
        """Return an adapter, checked, and the hub's own folder with it."""
        if expect_sha256 is not None:
            text_argument("expect_sha256", expect_sha256)
        fetched = self._fetch(repo_id, revision)
        adapter = check_adapter(fetched.adapter)
        if expect_sha256 is not None and adapter.weights_sha256 != expect_sha256.lower():
            raise InvalidAdapter(
                f"the weights of {repo_id}@{revision} have SHA-256 {adapter.weights_sha256}, "
                f"expected {expect_sha256}; either they were changed, or the expected hash belongs "
                "to another revision"
            )
        warn_if_deprecated(self._backend, fetched, revision)
        return adapter, self._backend.to_folder(fetched, revision)

    def _check_secrets(self, files: Mapping[str, bytes], texts: Mapping[str, str]) -> None:
        check_secrets(files, texts, leaves_machine=self._backend.is_remote)


def _backend(address: HubAddress, token: str | None, offline: bool) -> LocalHub | RemoteHub:
    if address.root is not None:
        from softhub.hub.local.local_hub import LocalHub

        return LocalHub(address.root)
    assert address.endpoint is not None
    from softhub.hub.remote.remote_hub import RemoteHub

    return RemoteHub(address.endpoint, token, offline=offline)
