"""Run the rows of a comparison that are not there yet."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from softhub.evaluation.evaluate import select_metrics
from softhub.experiments.comparison.methods import METHODS, Contest, jobs
from softhub.experiments.comparison.results import keep_context
from softhub.experiments.comparison.store import ComparedRow, RowStore
from softhub.tasks import Example, dataset_hash

logger = logging.getLogger("softhub")


def compare(contest: Contest, methods: Sequence[str] = METHODS) -> list[ComparedRow]:
    """Run every row that is missing, and keep each as soon as it is there.

    Args:
        contest: What is compared; rows are kept in its `args.output_dir`.
        methods: Names out of `METHODS`; the others are left out.

    Returns:
        All rows, those of earlier runs included.

    Raises:
        ConfigError: The folder holds another comparison, or a method is unknown; or as in
            `select_metrics`.
    """
    wanted = list(jobs(contest, methods))
    store = RowStore(contest.args.output_dir)
    store.open(about(contest))
    keep_context(store.folder, contest.task, contest.test)
    for number, job in enumerate(wanted, start=1):
        words = " ".join(str(part) for part in job.key if part not in ("", None))
        if job.key in {row.key for row in store.rows()}:  # of this run, or of another meanwhile
            continue
        logger.warning("[%d/%d] %s", number, len(wanted), words)
        row = job.run()
        store.add(row)
        scores = ", ".join(f"{name} {value:.3f}" for name, value in row.metrics.items())
        logger.warning("[%d/%d] %s: %s", number, len(wanted), words, scores)
    return store.rows()


def about(contest: Contest) -> dict[str, Any]:
    """What all rows of a comparison have in common."""
    task, base = contest.task, contest.base
    return {
        "task": task.to_record(),
        "metrics": list(select_metrics(task, run_code=contest.run_code, answers_only=True)),
        "base": {
            "name": base.name,
            "revision": base.revision,
            "quantization": base.quantization,
            "parameters": sum(p.numel() for p in base.model.parameters()),
            "bytes": sum(p.numel() * p.element_size() for p in base.model.parameters()),
        },
        "data": {
            "train": _split(contest.train),
            "dev": _split(contest.dev),
            "test": _split(contest.test),
        },
        "training": {
            **contest.args.to_provenance(),
            "init": contest.init,
            "lora_rate": contest.lora_rate,
            "fine_tuning_rate": contest.fine_tuning_rate,
        },
    }


def _split(examples: Sequence[Example]) -> Mapping[str, Any]:
    groups = {example.group for example in examples}
    return {
        "examples": len(examples),
        "groups": None if groups == {None} else len(groups),
        "sha256": dataset_hash(examples),
    }
