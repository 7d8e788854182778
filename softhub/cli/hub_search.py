"""Verbs that find adapters: search and similar."""

from typing import Annotated, Any

import typer

from softhub.cli.hub import ADAPTER_COLUMNS, adapter_cells
from softhub.cli.options import (
    AdapterArgument,
    HubOption,
    JsonOption,
    LimitOption,
    OutputOption,
    adapter_folder,
    option,
)
from softhub.cli.output import check_one_format, emit_columns, emit_json, write_records
from softhub.experiments.console import note

MetricOption = Annotated[str | None, option("Metric to sort and filter by.", "NAME")]
MinScoreOption = Annotated[
    float | None, typer.Option(help="Minimum score (maximum for metrics where lower is better).")
]
FingerprintOption = Annotated[
    str | None, option("Only the exact base model of this adapter.", "ADAPTER")
]
LicenseOption = Annotated[str | None, option("License, such as apache-2.0.", "ID", "--license")]


def search(
    text: Annotated[
        list[str] | None, typer.Argument(metavar="WORD", help="Words that must all occur.")
    ] = None,
    task: Annotated[str | None, option("Name of the task.", "NAME")] = None,
    kind: Annotated[str | None, option("classification or generation.", "KIND")] = None,
    prompt_type: Annotated[str | None, option("prompt or prefix.", "TYPE")] = None,
    base: Annotated[str | None, option("Base model, with or without namespace.", "MODEL")] = None,
    fingerprint_of: FingerprintOption = None,
    tag: Annotated[str | None, option("Tag of card or commit.", "TAG")] = None,
    author: Annotated[str | None, option("Namespace of the repository.", "NAME")] = None,
    language: Annotated[str | None, option("Language, such as en.", "CODE")] = None,
    license_id: LicenseOption = None,
    dataset: Annotated[str | None, option("Training dataset.", "ID")] = None,
    metric: MetricOption = None,
    min_score: MinScoreOption = None,
    sort: Annotated[str, option("score, date, size or name.", "KEY")] = "score",
    limit: LimitOption = 50,
    hub: HubOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find adapters by words, task, base model, score and more.

    The best score comes first. Scores are recorded by the publishers and are not measured again.
    """
    from softhub.hub import Hub

    check_one_format(output, as_json)
    source = Hub(hub)
    found = source.search(
        " ".join(text or ()) or None,
        task=task,
        task_kind=kind,
        prompt_type=prompt_type,
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
    if output is not None:
        write_records(output, [info.to_record() for info in found])
    elif as_json:
        emit_json([info.to_record() for info in found])
    elif found:
        rows = [adapter_cells(info, metric) for info in found]
        emit_columns((*ADAPTER_COLUMNS, "date", "note"), rows)
    else:
        command = f"softhub list{f' --hub {source.uri}' if hub else ''}"
        note(f"no adapter on hub {source.uri} matches; use fewer filters, or run {command}")


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
        note("there is no other adapter with the same base model, type and width on this hub")


def _fingerprint(hub: str, adapter: str | None) -> dict[str, Any] | None:
    if adapter is None:
        return None
    from softhub.adapter.validation import check_folder
    from softhub.errors import HubError

    manifest = check_folder(adapter_folder(adapter, hub=hub, revision=None)).manifest
    if manifest is None or not manifest.fingerprint:
        raise HubError(f"{adapter} has no fingerprint of its base model. Use --base instead.")
    return dict(manifest.fingerprint)
