"""Verbs of the hub: push, pull, list, info."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from softhub.cli.options import (
    AdapterArgument,
    HubOption,
    JsonOption,
    RepoArgument,
    RevisionOption,
    is_folder,
    option,
)
from softhub.cli.output import emit, emit_columns, emit_facts, emit_json, emit_table, score, text_of
from softhub.config import expand_user
from softhub.experiments.console import note

if TYPE_CHECKING:
    from softhub.adapter.manifest import RecordedMetric
    from softhub.hub import AdapterInfo

FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", file_okay=False, help="Adapter folder.")
]
TagOption = Annotated[list[str] | None, option("Tag of the commit, such as v1; repeatable.", "TAG")]
ParentOption = Annotated[str | None, option("Fail unless the branch is at this commit.", "HEX")]
LockOption = Annotated[
    Path | None, option("Pull all adapters of a lock file (see softhub lock).", "FILE")
]
ADAPTER_COLUMNS = ("repository", "task", "base model", "score", "tokens", "size")


def push(
    folder: FolderArgument,
    repo_id: RepoArgument,
    tag: TagOption = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Commit message.")] = None,
    revision: Annotated[str, option("Branch to push to.", "BRANCH")] = "main",
    private: Annotated[
        bool, typer.Option("--private", help="Make a new remote repository private.")
    ] = False,
    parent_commit: ParentOption = None,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Push an adapter folder to a hub and print the commit."""
    from dataclasses import asdict

    from softhub.hub import Hub

    target = Hub(hub)
    commit = target.push(
        folder,
        repo_id,
        revision=revision,
        message=message,
        tags=tag or (),
        private=private,
        parent_commit=parent_commit,
    )
    if not commit.created:
        note(f"{repo_id} on {target.uri} already has exactly this content; no commit was created")
    if as_json:
        emit_json(asdict(commit))
    else:
        emit(f"{commit.repo_id}@{commit.revision}")


def pull(
    repo_id: Annotated[
        str | None, typer.Argument(metavar="REPO_ID", help="NAMESPACE/NAME.")
    ] = None,
    revision: RevisionOption = None,
    to: Annotated[Path | None, option("Copy the adapter to this folder.", "DIR", "--to")] = None,
    expect_sha256: Annotated[
        str | None, option("Expected SHA-256 of the weights file.", "HEX")
    ] = None,
    lock: LockOption = None,
    hub: HubOption = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use only adapters that were pulled before.")
    ] = False,
) -> None:
    """Download an adapter, check it and print its folder.

    PEFT can load the folder too. Nothing in it is ever executed.
    """
    from softhub.hub import Hub

    if (repo_id is None) == (lock is None):
        raise typer.BadParameter("give either REPO_ID or --lock FILE")
    source = Hub(hub, offline=offline)
    if lock is not None:
        if revision or expect_sha256:
            raise typer.BadParameter("--lock sets --revision and --expect-sha256; remove them")
        folders = source.pull_locked(lock, local_dir=to)
        emit_table(("name", "folder"), [(name, str(folder)) for name, folder in folders.items()])
    elif repo_id is not None:
        folder = source.pull(
            repo_id, revision=revision or "main", local_dir=to, expect_sha256=expect_sha256
        )
        emit(str(folder))


def list_(hub: HubOption = None, as_json: JsonOption = False) -> None:
    """List the adapters on a hub (alias: ls)."""
    from softhub.hub import Hub
    from softhub.hub.names import HubAddress

    source = Hub(hub)
    found = source.list()
    if as_json:
        emit_json([info.to_record() for info in found])
    elif found:
        columns = (*ADAPTER_COLUMNS, "tags", "note")
        emit_columns(columns, [adapter_cells(info) for info in found])
    else:
        root = HubAddress.parse(hub).root
        missing = root is not None and not root.is_dir()
        cause = f" (its folder {root} does not exist yet)" if missing else ""
        command = f"softhub push FOLDER NAMESPACE/NAME{f' --hub {source.uri}' if hub else ''}"
        note(f"hub {source.uri} is empty{cause}; push an adapter: {command}")


def info(
    adapter: AdapterArgument,
    revision: RevisionOption = None,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the details and scores of one adapter."""
    if is_folder(adapter, revision=revision):
        found, record = _describe_folder(expand_user(adapter))
    else:
        from softhub.hub import Hub

        found = Hub(hub).info(adapter, revision=revision or "main")
        record = found.to_record()
    if as_json:
        emit_json(record)
        return
    emit_facts(_facts(found))
    if found.metrics:
        emit("")
        rows = [row for metric in found.metrics for row in _scores(found, metric)]
        emit_table(("split", "metric", "of", "value", "examples"), rows)


def _describe_folder(folder: Path) -> tuple["AdapterInfo", dict[str, Any]]:
    """Check a folder as strictly as a pull does, and describe it."""
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


def adapter_cells(info: "AdapterInfo", metric: str | None = None) -> dict[str, str]:
    """Return the cells of an adapter by column; its score is of `metric`, or of the main metric."""
    from softhub.hub.query import Query

    scored = Query(metric=metric).score_of(info)
    is_prefix = info.prompt_type == "prefix"
    return {
        "repository": info.repo_id,
        "task": info.task or "unknown",
        "base model": info.base_model or "unknown",
        "score": f"{scored[0]} {scored[1]:.3f}" if scored else "",
        "tokens": text_of(info.num_virtual_tokens) + (" (prefix)" if is_prefix else ""),
        "size": decimal(info.total_bytes),
        "tags": ", ".join(info.tags),
        "date": info.date[:10],
        "note": "deprecated" if info.deprecated else (info.unchecked or "").partition(":")[0],
    }


def _facts(info: "AdapterInfo") -> list[tuple[str, Any]]:
    kind = f" ({info.task_kind})" if info.task_kind else ""
    return [
        ("adapter", info.repo_id),
        ("commit", info.revision),
        ("tags", ", ".join(info.tags)),
        ("task", f"{info.task or 'unknown'}{kind}"),
        ("base model", info.base_model or "unknown"),
        ("prompt type", info.prompt_type),
        ("virtual tokens", _virtual_tokens(info)),
        ("vLLM prefix cache", _reuse(info)),
        ("size", decimal(info.total_bytes)),
        ("weights sha256", info.weights_sha256),
        ("datasets", ", ".join(info.datasets)),
        ("language", ", ".join(info.language)),
        ("license", info.license),
        ("date", info.date),
        ("message", info.message),
        ("deprecated", info.deprecated),
        ("use instead", info.replacement),
        ("not checked", info.unchecked),
    ]


def _virtual_tokens(info: "AdapterInfo") -> str | None:
    if not info.num_virtual_tokens:
        return None
    width = "keys and values of every layer" if info.prompt_type == "prefix" else info.hidden_size
    return f"{info.num_virtual_tokens} x {width}"


def _reuse(info: "AdapterInfo") -> str | None:
    from softhub.serving.vllm.blocks import describe_reuse

    is_prompt = info.num_virtual_tokens and info.prompt_type != "prefix"
    return describe_reuse(info.num_virtual_tokens or 0) if is_prompt else None


def _scores(info: "AdapterInfo", metric: "RecordedMetric") -> Iterator[tuple[str, ...]]:
    from softhub.adapter.manifest import METHOD_OF_TYPE

    name, examples = (metric.split, metric.name), str(metric.examples)
    yield *name, METHOD_OF_TYPE[info.prompt_type or "prompt"], score(metric), examples
    for baseline, value in metric.baselines.items():
        yield *name, baseline, f"{value:.3f}", examples
