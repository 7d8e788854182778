"""Verbs that find adapters: search and similar."""

from pathlib import Path
from typing import Annotated, Any

import typer

from softhub.cli.hub import ADAPTER_COLUMNS, adapter_cells
from softhub.cli.options import AdapterArgument, HubOption, JsonOption, LimitOption
from softhub.cli.output import emit_columns, emit_json, say

MetricOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Metric to sort and filter by.")
]
MinScoreOption = Annotated[
    float | None,
    typer.Option(help="Minimum score (maximum for metrics where lower is better)."),
]
FingerprintOption = Annotated[
    str | None, typer.Option(metavar="ADAPTER", help="Only the exact base model of this adapter.")
]
LicenseOption = Annotated[
    str | None, typer.Option("--license", metavar="ID", help="License, such as apache-2.0.")
]


def search(
    text: Annotated[
        list[str] | None, typer.Argument(metavar="WORD", help="Words that must all occur.")
    ] = None,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the task.")] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="classification or generation.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Base model, with or without namespace.")
    ] = None,
    fingerprint_of: FingerprintOption = None,
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="Tag of card or commit.")] = None,
    author: Annotated[
        str | None, typer.Option(metavar="NAME", help="Namespace of the repository.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(metavar="CODE", help="Language, such as en.")
    ] = None,
    license_id: LicenseOption = None,
    dataset: Annotated[str | None, typer.Option(metavar="ID", help="Training dataset.")] = None,
    metric: MetricOption = None,
    min_score: MinScoreOption = None,
    sort: Annotated[str, typer.Option(metavar="KEY", help="score, date, size or name.")] = "score",
    limit: LimitOption = 50,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find adapters by words, task, base model, score and more.

    The best score comes first. Scores are recorded by the publishers and are not measured again.
    """
    from softhub.hub import Hub

    source = Hub(hub)
    found = source.search(
        " ".join(text or ()) or None,
        task=task,
        task_kind=kind,
        base_model=base,
        fingerprint=_fingerprint(source.uri, fingerprint_of),
        tag=tag,
        author=author,
        language=language,
        license=license_id,
        dataset=dataset,
        metric=metric,
        min_score=min_score,
        sort=sort,
        limit=limit,
    )
    if as_json:
        emit_json([info.to_record() for info in found])
    elif found:
        rows = [adapter_cells(info, metric) for info in found]
        emit_columns((*ADAPTER_COLUMNS, "date", "note"), rows)
    else:
        say(f"no adapter on hub {source.uri} matches; use fewer filters, or run softhub list")


def similar(
    adapter: AdapterArgument,
    limit: LimitOption = 10,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank adapters of the same base model by vector similarity.

    This is a heuristic (SPoT): a similar prompt may be a good initialization. Compare scores on the
    dev split to decide.
    """
    from softhub.hub import Hub

    ranked = Hub(hub).similar(adapter, limit=limit)
    if as_json:
        emit_json([{"similarity": score, **info.to_record()} for info, score in ranked])
    elif ranked:
        rows = [{"similarity": f"{score:.3f}", **adapter_cells(info)} for info, score in ranked]
        emit_columns(("similarity", *ADAPTER_COLUMNS[:4]), rows)
    else:
        say("there is no other adapter with the same base model and hidden size on this hub")


def _fingerprint(hub: str, adapter: str | None) -> dict[str, Any] | None:
    """Return the fingerprint of an adapter's base model."""
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
        raise HubError(f"{adapter} has no fingerprint of its base model. Use --base instead.")
    return dict(fingerprint)
