"""One training run, as the index tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from softhub.adapter.manifest import RecordedMetric

FINISHED = "finished"
TRAINED = "only checkpoints"
INTERRUPTED = "interrupted"
BEGUN = "begun"
FAILED = "failed"
DAMAGED = "damaged"


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        path: Its folder, relative to that of the index.
        state: `finished`; `only checkpoints`: trained to its end, not judged; `interrupted`, or
            still at work; `begun`: no checkpoint yet; `failed`; or `damaged`.
        note: What a person should know: how far it got, what it warned of, what is wrong.
        task: The task's name; of a mixture those of its tasks.
        base_model: The base's name.
        num_virtual_tokens: Rows of the prompt.
        score: Its main metric on the test split.
        dev_loss: That of the checkpoint that was kept, or the lowest so far.
        best_step: The step of that.
        steps: Optimizer steps made.
        seconds: Wall time of training.
        seed: Its seed.
        date: When it ended, or was last saved: UTC, ISO 8601.
        settings: Equal for runs that differ by their seed alone.
        weights_sha256: Hash of the prompt's weights file.
        softhub_version: The softhub that saved it.
        provenance: Data, seed, settings, versions and commit, as in the prompt's manifest.
        config: What the recipe was told.
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
    settings: str | None = None
    weights_sha256: str | None = None
    softhub_version: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def to_record(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        record = asdict(replace(self, provenance={}, config={}))
        return {**record, "provenance": dict(self.provenance), "config": dict(self.config)}
