"""Verbs of the hub: push, pull, list, info."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softhub.cli.options import (
    AdapterArgument,
    HubOption,
    JsonOption,
    OfflineOption,
    RevisionOption,
    is_folder,
)
from softhub.cli.output import emit, emit_facts, emit_json, emit_table, say, size

if TYPE_CHECKING:
    from softhub.adapter.manifest import RecordedMetric
    from softhub.hub import AdapterInfo, Hub

RepoArgument = Annotated[
    str, typer.Argument(metavar="REPO_ID", help="NAMESPACE/NAME.", show_default=False)
]


def push(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            exists=True,
            file_okay=False,
            help="The adapter folder.",
            show_default=False,
        ),
    ],
    repo_id: RepoArgument,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="Name the commit, e.g. v1; repeatable.")
    ] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="What is new.")] = None,
    revision: Annotated[str, typer.Option(metavar="BRANCH", help="Branch to push to.")] = "main",
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private (remote hubs).")
    ] = False,
    parent_commit: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="Refuse unless the branch still names this commit."),
    ] = None,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish an adapter folder, and print the commit."""
    from dataclasses import asdict

    from softhub.hub import Hub

    to = Hub(hub)
    commit = to.push(
        folder,
        repo_id,
        revision=revision,
        message=message,
        tags=tag or (),
        private=private,
        parent_commit=parent_commit,
    )
    if not commit.created:
        say(f"{repo_id} on {to.uri} already holds exactly this; no new commit")
    if as_json:
        emit_json(asdict(commit))
    else:
        emit(f"{commit.repo_id}@{commit.revision}")


def pull(
    repo_id: Annotated[
        str | None, typer.Argument(metavar="REPO_ID", help="NAMESPACE/NAME.", show_default=False)
    ] = None,
    revision: RevisionOption = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="DIR", help="Copy the adapter there; else the hub's own copy serves."
        ),
    ] = None,
    expect_sha256: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="SHA-256 that the weights file must have."),
    ] = None,
    lock: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Pull every prompt of a lock file (see `softhub lock`), each exactly as locked.",
        ),
    ] = None,
    hub: HubOption = None,
    offline: OfflineOption = False,
) -> None:
    """Fetch and check an adapter, and print its folder.

    Plain PEFT reads that folder too. Nothing in it is ever executed.
    """
    from softhub.hub import Hub

    if (repo_id is None) == (lock is None):
        raise typer.BadParameter("give either REPO_ID or --lock FILE")
    where = Hub(hub, offline=offline)
    if lock is not None:
        _pull_locked(where, lock, to, only_with_repo_id=(revision, expect_sha256))
    elif repo_id is not None:
        folder = where.pull(
            repo_id, revision=revision or "main", local_dir=to, expect_sha256=expect_sha256
        )
        emit(str(folder))


def _pull_locked(
    hub: "Hub", lock: Path, to: Path | None, *, only_with_repo_id: tuple[str | None, ...]
) -> None:
    if any(only_with_repo_id):
        raise typer.BadParameter("--lock says revisions and hashes itself; leave the others out")
    folders = hub.pull_locked(lock, local_dir=to)
    emit_table(("name", "folder"), [(name, str(folder)) for name, folder in folders.items()])


def list_adapters(hub: HubOption = None, as_json: JsonOption = False) -> None:
    """List the adapters on the hub (alias: ls)."""
    from softhub.hub import Hub

    where = Hub(hub)
    found = where.list()
    if as_json:
        emit_json([info.to_record() for info in found])
        return
    if not found:
        say(f"hub {where.uri} is empty; put an adapter there: softhub push FOLDER NAMESPACE/NAME")
        return
    columns = ("repository", "task", "base model", "score", "tokens", "size", "tags", "note")
    emit_table(columns, [_row(info) for info in found])


def info(
    adapter: AdapterArgument,
    revision: RevisionOption = None,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one adapter, on the hub or in a folder."""
    if is_folder(adapter, revision=revision):
        found, record = _describe_folder(Path(adapter).expanduser())
    else:
        from softhub.hub import Hub

        found = Hub(hub).info(adapter, revision=revision or "main")
        record = found.to_record()
    if as_json:
        emit_json(record)
    else:
        emit_facts(_facts(found))
        _show_scores(found.metrics)


def _describe_folder(folder: Path) -> tuple["AdapterInfo", dict[str, Any]]:
    """Check a folder as strictly as a pull would, and describe it."""
    from softhub.adapter.validation import check_folder
    from softhub.hub.describe import describe

    adapter = check_folder(folder)
    found = describe(
        str(folder),
        adapter,
        revision="",
        total_bytes=adapter.total_bytes,
        weights_sha256=adapter.weights_sha256,
    )
    of_repositories = ("repo_id", "revision", "tags", "author", "date", "message")
    record = {key: v for key, v in found.to_record().items() if key not in of_repositories}
    return found, {"folder": str(folder), **record}


def _row(info: "AdapterInfo") -> tuple[str, ...]:
    return (
        info.repo_id,
        info.task or "unknown",
        info.base_model or "unknown",
        f"{info.score[0]} {info.score[1]:.3f}" if info.score else "",
        str(info.num_virtual_tokens or ""),
        size(info.total_bytes),
        ", ".join(info.tags),
        note(info).partition(":")[0],  # `search` and `info` have room for all of it
    )


def note(info: "AdapterInfo") -> str:
    """Return what a person must know before using an adapter."""
    return f"deprecated: {info.deprecated}" if info.deprecated else info.unchecked or ""


def _facts(info: "AdapterInfo") -> list[tuple[str, str]]:
    """Names and values that are known, in the order in which a person asks for them."""
    kind = f" ({info.task_kind})" if info.task_kind else ""
    virtual = f"{info.num_virtual_tokens} x {info.hidden_size}" if info.num_virtual_tokens else ""
    facts = {
        "adapter": info.repo_id,
        "commit": info.revision,
        "tags": ", ".join(info.tags),
        "task": f"{info.task or 'unknown'}{kind}",
        "base model": info.base_model or "unknown",
        "virtual tokens": virtual,
        "size": size(info.total_bytes),
        "weights sha256": info.weights_sha256 or "",
        "datasets": ", ".join(info.datasets),
        "language": ", ".join(info.language),
        "licence": info.license or "",
        "date": info.date,
        "message": info.message,
        "deprecated": info.deprecated or "",
        "use instead": info.replacement or "",
        "not checked": info.unchecked or "",
    }
    return [(name, value) for name, value in facts.items() if value]


def _show_scores(metrics: tuple["RecordedMetric", ...]) -> None:
    if not metrics:
        return
    emit("")
    rows = []
    for metric in metrics:
        rows.append(
            (metric.split, metric.name, "soft prompt", _value(metric), str(metric.examples))
        )
        for name, value in metric.baselines.items():
            rows.append((metric.split, metric.name, name, f"{value:.3f}", str(metric.examples)))
    emit_table(("split", "metric", "of", "value", "examples"), rows)


def _value(metric: "RecordedMetric") -> str:
    if metric.low is None or metric.high is None:
        return f"{metric.value:.3f}"
    return f"{metric.value:.3f} ({metric.low:.3f} to {metric.high:.3f})"
