"""Verbs that find adapters: search and similar."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softhub.cli.hub import note
from softhub.cli.options import AdapterArgument, HubOption, JsonOption
from softhub.cli.output import emit_json, emit_table, say, size

if TYPE_CHECKING:
    from softhub.hub import AdapterInfo

_COLUMNS = ("repository", "task", "base model", "score", "tokens", "size", "date", "note")


def search(
    text: Annotated[
        list[str] | None, typer.Argument(metavar="WORD", help="Words that must all occur.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Name of the task.")] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="classification or generation.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="NAME", help="Base model, with or without its namespace.")
    ] = None,
    fingerprint_of: Annotated[
        str | None,
        typer.Option(
            metavar="REPO_OR_FOLDER", help="Only prompts for the very base that this one is for."
        ),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Tag of the card or of the repository.")] = None,
    author: Annotated[str | None, typer.Option(help="Owner of the repository.")] = None,
    language: Annotated[str | None, typer.Option(metavar="CODE", help="Such as en.")] = None,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="Such as apache-2.0.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(metavar="ID", help="What it learned from.")] = None,
    metric: Annotated[str | None, typer.Option(help="Metric to sort and filter by.")] = None,
    min_score: Annotated[
        float | None, typer.Option(metavar="X", help="At least this score (at most, for errors).")
    ] = None,
    sort: Annotated[str, typer.Option(help="score, date, size or name.")] = "score",
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find adapters by words, task, base model, score and more; the best first.

    Scores are what publishers recorded; nothing is measured again.
    """
    from softhub.hub import Hub

    where = Hub(hub)
    found = where.search(
        " ".join(text) if text else None,
        task=task,
        task_kind=kind,
        base_model=base,
        fingerprint=_fingerprint(where.uri, fingerprint_of),
        tag=tag,
        author=author,
        language=language,
        license=licence,
        dataset=dataset,
        metric=metric,
        min_score=min_score,
        sort=sort,
        limit=limit,
    )
    if as_json:
        emit_json([info.to_record() for info in found])
    elif found:
        emit_table(_COLUMNS, [_row(info, metric) for info in found])
    else:
        say(f"nothing on hub {where.uri} matches; ask for less, or see `softhub list`")


def similar(
    adapter: AdapterArgument,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 10,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank the prompts of the same base by how alike their vectors are.

    A heuristic (SPoT): alike prompts are worth trying as a start; let the dev score decide.
    """
    from softhub.hub import Hub

    ranked = Hub(hub).similar(adapter, limit=limit)
    if as_json:
        emit_json([{"similarity": score, **info.to_record()} for info, score in ranked])
    elif ranked:
        rows = [(f"{score:.3f}", *_row(info, None)[:4]) for info, score in ranked]
        emit_table(("similarity", *_COLUMNS[:4]), rows)
    else:
        say("no other prompt of the same base and width is on this hub")


def _fingerprint(hub: str, adapter: str | None) -> dict[str, object] | None:
    """Return the fingerprint of the base that an adapter is for."""
    if adapter is None:
        return None
    from softhub.adapter.validation import check_folder
    from softhub.errors import HubError
    from softhub.hub import Hub

    if Path(adapter).is_dir():
        manifest = check_folder(adapter).manifest
        fingerprint = manifest.fingerprint if manifest else None
    else:
        fingerprint = Hub(hub).info(adapter).fingerprint
    if not fingerprint:
        raise HubError(f"{adapter} has no fingerprint of its base; give --base NAME instead")
    return dict(fingerprint)


def _row(info: "AdapterInfo", metric: str | None) -> tuple[str, ...]:
    from softhub.hub.query import Query

    score = Query(metric=metric).score_of(info)
    return (
        info.repo_id,
        info.task or "unknown",
        info.base_model or "unknown",
        f"{score[0]} {score[1]:.3f}" if score else "",
        str(info.num_virtual_tokens or ""),
        size(info.total_bytes),
        info.date[:10],
        note(info),
    )
