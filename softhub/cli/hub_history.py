"""Verbs about versions: log, diff, tag, untag, verify, deprecate, delete and lock."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softhub.cli.hub import RepoArgument
from softhub.cli.options import HubOption, JsonOption, RevisionOption
from softhub.cli.output import emit, emit_facts, emit_json, emit_table, say

if TYPE_CHECKING:
    from softhub.hub import CommitInfo

TagArgument = Annotated[str, typer.Argument(metavar="TAG", help="Such as v1.", show_default=False)]


def log(
    repo_id: RepoArgument,
    revision: RevisionOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the history, newest first: commit, date, author, metrics, tags, message."""
    from softhub.hub import Hub

    entries = Hub(hub).log(repo_id, revision=revision or "main", limit=limit)
    if as_json:
        emit_json([asdict(entry) for entry in entries])
    else:
        columns = ("commit", "date", "author", "metrics", "tags", "message")
        emit_table(columns, [_row(entry) for entry in entries])


def diff(
    repo_id: RepoArgument,
    old: Annotated[
        str, typer.Argument(metavar="A", help="Tag, branch or commit.", show_default=False)
    ],
    new: Annotated[str, typer.Argument(metavar="B", help="What to compare it with.")] = "main",
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what changed from A to B: metrics, config, manifest, and how far the vectors moved."""
    from softhub.hub import Hub

    found = Hub(hub).diff(repo_id, old, new)
    if as_json:
        emit_json(found.to_record())
        return
    rows = [
        (part, key, _value(before), _value(after))
        for part, changes in (
            ("metric", found.metrics),
            ("config", found.config),
            ("manifest", found.manifest),
        )
        for key, (before, after) in changes.items()
    ]
    if rows:
        emit_table(("part", "key", f"A {found.old[:12]}", f"B {found.new[:12]}"), rows)
    emit_facts(_moves(found))


def tag(
    repo_id: RepoArgument,
    name: TagArgument,
    revision: RevisionOption = None,
    hub: HubOption = None,
) -> None:
    """Give a commit a name that does not move, and print the commit."""
    from softhub.hub import Hub

    emit(f"{repo_id}@{Hub(hub).tag(repo_id, name, revision=revision or 'main')}")


def untag(repo_id: RepoArgument, name: TagArgument, hub: HubOption = None) -> None:
    """Remove a tag; the commit stays."""
    from softhub.hub import Hub

    Hub(hub).untag(repo_id, name)
    say(f"{repo_id} has no tag {name} any more")


def verify(repo_id: RepoArgument, hub: HubOption = None, as_json: JsonOption = False) -> None:
    """Check every commit that can be reached: hashes, weights, config, manifest.

    The exit code is 1 if one is damaged.
    """
    from softhub.hub import Hub

    verdicts = Hub(hub).verify(repo_id)
    if as_json:
        emit_json(verdicts)
    else:
        rows = [(commit, fault or "sound") for commit, fault in verdicts.items()]
        emit_table(("commit", "verdict"), rows)
    if any(verdicts.values()):
        raise typer.Exit(1)


def deprecate(
    repo_id: RepoArgument,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why, in one sentence.", show_default=False)
    ],
    replacement: Annotated[
        str | None, typer.Option(metavar="REPO_ID", help="What to use instead.")
    ] = None,
    hub: HubOption = None,
) -> None:
    """Mark a repository as not to be used any more: pulls warn, nothing is removed.

    Pushing a card without the mark takes it back.
    """
    from softhub.hub import Hub

    commit = Hub(hub).deprecate(repo_id, reason=reason, replacement=replacement)
    emit(f"{commit.repo_id}@{commit.revision}")


def delete(
    repo_id: RepoArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    hub: HubOption = None,
) -> None:
    """Remove a repository and its whole history for good (alias: rm).

    `softhub deprecate` is the gentler way.
    """
    from softhub.hub import Hub

    where = Hub(hub)
    if not yes:
        typer.confirm(
            f"Delete {repo_id} on hub {where.uri} with its history?", abort=True, err=True
        )
    where.delete(repo_id)
    say(f"{repo_id} is gone from hub {where.uri}")


def lock(
    prompts: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=REPO_ID[@REV]", help="Prompts by the name to use.", show_default=False
        ),
    ],
    file: Annotated[Path, typer.Option(metavar="FILE", help="The lock file.")] = Path(
        "softhub.lock"
    ),
    hub: HubOption = None,
) -> None:
    """Pin prompts to their commits and hashes; `softhub pull --lock` fetches exactly those."""
    from softhub.hub import Hub

    named = dict(_split(prompt) for prompt in prompts)
    locked = Hub(hub).lock(file, named)
    rows = [(name, p.repo_id, p.revision, p.weights_sha256) for name, p in locked.items()]
    emit_table(("name", "repository", "commit", "weights sha256"), rows)


def _split(prompt: str) -> tuple[str, str]:
    name, equals, reference = prompt.partition("=")
    if not equals or not name or not reference:
        raise typer.BadParameter(f"{prompt!r} is not NAME=NAMESPACE/NAME[@REVISION]")
    return name, reference


def _row(entry: "CommitInfo") -> tuple[str, ...]:
    metrics = ", ".join(f"{m.name} {m.value:.3f} ({m.split})" for m in entry.metrics)
    return (
        entry.revision,
        entry.date[:19].replace("T", " "),
        entry.author,
        metrics,
        ", ".join(entry.tags),
        entry.message,
    )


def _value(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _moves(found: Any) -> list[tuple[str, str]]:
    facts = [("card", "changed" if found.card_changed else "the same")]
    if found.vectors is None:
        return [*facts, ("vectors", "of another shape")]
    shift = found.vectors
    return [
        *facts,
        ("vectors moved by", f"{shift.relative_distance:.1%} of their length"),
        ("mean cosine", f"{shift.mean_cosine:.4f}"),
        ("most turned", f"virtual token {shift.most_moved}, cosine {shift.lowest_cosine:.4f}"),
    ]
