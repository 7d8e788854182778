"""One training run, as the index describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from softhub.adapter.manifest import RecordedMetric

FINISHED = "finished"
TRAINED = "only checkpoints"
INTERRUPTED = "interrupted"
STARTED = "started"
FAILED = "failed"
DAMAGED = "damaged"


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        path: Folder of the run, relative to that of the index.
        state: `finished`; `only checkpoints`: fully trained, but not evaluated; `interrupted`, or
            still running; `started`: no checkpoint yet; `failed`; or `damaged`.
        note: Remarks: progress, warnings, problems.
        task: Name of the task, or of the tasks of a mixture.
        base_model: Name of the base model.
        num_virtual_tokens: Number of virtual tokens.
        score: Main metric on the test split.
        dev_loss: Dev loss of the best checkpoint, or the lowest so far.
        best_step: Step of that checkpoint.
        steps: Number of optimizer steps so far.
        seconds: Wall time of training.
        seed: Seed of the run.
        date: When the run ended or was last saved: UTC, ISO 8601.
        weights_sha256: Hash of the prompt's weights file.
        softhub_version: Version of softhub that saved the prompt.
        provenance: Data, seed, settings, versions and commit, as in the prompt's manifest.
        config: Settings of the recipe.
    """

    path: str
    state: str
    note: str = ""
    task: str | None = None
    base_model: str | None = None
    num_virtual_tokens: int | None = None
    score: RecordedMetric | None = None
    dev_loss: float | None = None
    best_step: int | None = None
    steps: int | None = None
    seconds: float | None = None
    seed: int | None = None
    date: str | None = None
    weights_sha256: str | None = None
    softhub_version: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def to_record(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)
