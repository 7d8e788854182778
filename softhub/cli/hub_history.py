"""Verbs for versions: log, diff, tag, untag, verify, deprecate, delete and lock."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softhub.cli.options import (
    HubOption,
    JsonOption,
    LimitOption,
    RepoArgument,
    RevisionOption,
    option,
)
from softhub.cli.output import emit, emit_facts, emit_json, emit_table
from softhub.errors import ConfigError
from softhub.experiments.console import note

if TYPE_CHECKING:
    from softhub.hub import CommitInfo
    from softhub.hub.diff import Difference

TagArgument = Annotated[str, typer.Argument(metavar="TAG", help="Name of the tag, such as v1.")]


def log(
    repo_id: RepoArgument,
    revision: RevisionOption = None,
    limit: LimitOption = 50,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the commits of an adapter, newest first."""
    from softhub.hub import Hub

    entries = Hub(hub).log(repo_id, revision=revision or "main", limit=limit)
    if as_json:
        emit_json([asdict(entry) for entry in entries])
    else:
        columns = ("commit", "date", "author", "metrics", "tags", "message")
        emit_table(columns, [_row(entry) for entry in entries])


def diff(
    repo_id: RepoArgument,
    old: Annotated[str, typer.Argument(metavar="A", help="Tag, branch or commit.")],
    new: Annotated[str, typer.Argument(metavar="B", help="Tag, branch or commit.")] = "main",
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two versions: metrics, config, manifest and vectors."""
    from softhub.hub import Hub

    found = Hub(hub).diff(repo_id, old, new)
    if as_json:
        emit_json(found.to_record())
        return
    parts = {"metric": found.metrics, "config": found.config, "manifest": found.manifest}
    rows = [
        (part, key, _value(before), _value(after))
        for part, changes in parts.items()
        for key, (before, after) in changes.items()
    ]
    if rows:
        emit_table(("part", "key", f"A {found.old[:12]}", f"B {found.new[:12]}"), rows)
    emit_facts(_other_changes(found))


def tag(
    repo_id: RepoArgument,
    name: TagArgument,
    revision: RevisionOption = None,
    hub: HubOption = None,
) -> None:
    """Tag a commit and print the commit."""
    from softhub.hub import Hub

    emit(f"{repo_id}@{Hub(hub).tag(repo_id, name, revision=revision or 'main')}")


def untag(repo_id: RepoArgument, name: TagArgument, hub: HubOption = None) -> None:
    """Remove a tag; the commit stays."""
    from softhub.hub import Hub

    Hub(hub).untag(repo_id, name)
    note(f"removed the tag {name} of {repo_id}")


def verify(repo_id: RepoArgument, hub: HubOption = None, as_json: JsonOption = False) -> None:
    """Check hashes and contents of all reachable commits.

    The exit code is 1 if a commit is damaged.
    """
    from softhub.hub import Hub

    verdicts = Hub(hub).verify(repo_id)
    if as_json:
        emit_json(verdicts)
    else:
        rows = [(commit, fault or "valid") for commit, fault in verdicts.items()]
        emit_table(("commit", "verdict"), rows)
    if any(verdicts.values()):
        raise typer.Exit(1)


def deprecate(
    repo_id: RepoArgument,
    reason: Annotated[str, typer.Option(help="Reason, in one sentence.")],
    replacement: Annotated[str | None, option("Repository to use instead.", "REPO_ID")] = None,
    hub: HubOption = None,
) -> None:
    """Mark a repository as deprecated, so that pulls print a warning.

    Nothing is removed. To undo this, push the adapter with a card without the mark.
    """
    from softhub.hub import Hub

    commit = Hub(hub).deprecate(repo_id, reason=reason, replacement=replacement)
    emit(f"{commit.repo_id}@{commit.revision}")


def delete(
    repo_id: RepoArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    hub: HubOption = None,
) -> None:
    """Delete a repository and its history (alias: rm).

    This cannot be undone; consider `softhub deprecate` instead.
    """
    from softhub.hub import Hub

    target = Hub(hub)
    if not yes:
        _confirm(f"Delete {repo_id} with its history from hub {target.uri}?")
    target.delete(repo_id)
    note(f"deleted {repo_id} from hub {target.uri}")


def _confirm(question: str) -> None:
    print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        print(file=sys.stderr)
        raise ConfigError("stdin has no answer to the question; add --yes to answer it.")
    if answer.strip().lower() not in ("y", "yes"):
        raise typer.Abort


def lock(
    prompts: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=REPO_ID[@REV]", help="Adapters, each with the name to use it under."
        ),
    ],
    file: Annotated[Path, option("Lock file.", "FILE")] = Path("softhub.lock"),
    hub: HubOption = None,
) -> None:
    """Pin adapters to commits and hashes in a lock file.

    `softhub pull --lock` pulls exactly those versions.
    """
    from softhub.hub import Hub

    locked = Hub(hub).lock(file, _by_name(prompts))
    rows = [(name, p.repo_id, p.revision, p.weights_sha256) for name, p in locked.items()]
    emit_table(("name", "repository", "commit", "weights sha256"), rows)


def _by_name(prompts: list[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for name, reference in map(_split, prompts):
        if name in named:
            raise typer.BadParameter(
                f"the name {name!r} is given twice, for {named[name]} and {reference}; expected a "
                "different name for each adapter"
            )
        named[name] = reference
    return named


def _split(prompt: str) -> tuple[str, str]:
    name, _, reference = prompt.partition("=")
    if not name or not reference:
        raise typer.BadParameter(f"found {prompt!r}; expected NAME=NAMESPACE/NAME[@REVISION]")
    return name, reference


def _row(entry: "CommitInfo") -> tuple[str, ...]:
    metrics = ", ".join(f"{m.name} {m.value:.3f} ({m.split})" for m in entry.metrics)
    date = entry.date[:19].replace("T", " ")
    return (entry.revision, date, entry.author, metrics, ", ".join(entry.tags), entry.message)


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def _other_changes(found: "Difference") -> list[tuple[str, str]]:
    facts = [("card", "changed" if found.card_changed else "unchanged")]
    shift = found.vectors
    if shift is None:
        return [*facts, ("vectors", "of different types or shapes, not comparable")]
    return [
        *facts,
        ("vectors moved by", f"{shift.relative_distance:.1%} of their size"),
        ("mean cosine", f"{shift.mean_cosine:.4f}"),
        ("largest change", f"virtual token {shift.most_moved}, cosine {shift.lowest_cosine:.4f}"),
    ]
