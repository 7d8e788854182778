"""Read the folder of one run, without a model and without trusting its files.

Files are limited in size and checked. An invalid file makes a damaged run, never an error. The
pickles in checkpoints are not opened: their `trainer_state.json` has the number of steps.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from softhub.adapter.manifest import Manifest
from softhub.adapter.strict_json import check_value
from softhub.adapter.validation import check_folder
from softhub.errors import SoftHubError
from softhub.experiments.runs.run import (
    DAMAGED,
    FAILED,
    FINISHED,
    INTERRUPTED,
    STARTED,
    TRAINED,
    Run,
)

_ADAPTER, _REPORT, _RUN_STATE, _STATE = (
    "adapter",
    "report.json",
    "run_state.json",
    "trainer_state.json",
)
COMPARISON = "comparison.json"
"""File that only a comparison's folder has."""
_CHECKPOINT, _RESTART = re.compile(r"checkpoint-(\d{1,12})"), re.compile(r"restart-(\d{1,6})")
_MAX_BYTES, _MAX_NOTE = 64 * 2**20, 500


class _InvalidFile(Exception):
    """A file of a run is missing or invalid."""


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run: it has a report, an adapter, a state or checkpoints.

    A folder that cannot be read may be one.
    """
    try:
        files = [(folder / name).is_file() for name in (_RUN_STATE, _REPORT)]
        parts = (*files, (folder / _ADAPTER).is_dir())
        return any(parts) or _newest(folder, _CHECKPOINT) is not None
    except OSError:
        return True


def is_part(name: str) -> bool:
    """Return whether a folder of that name belongs to the run in its parent, or is hidden."""
    parts = (_CHECKPOINT.fullmatch(name), _RESTART.fullmatch(name))
    return name.startswith(".") or name == _ADAPTER or any(parts)


def read_run(folder: Path, root: Path) -> Run:
    """Read a run.

    Args:
        folder: Its folder.
        root: The folder of the index.

    Returns:
        The run; problems are described in its state and note.
    """
    run = Run(folder.relative_to(root).as_posix(), STARTED, "no checkpoint yet", date=_date(folder))
    try:
        return _read(folder, run)
    except (_InvalidFile, SoftHubError, OSError, RecursionError) as error:
        return replace(run, state=DAMAGED, note=str(error))


def _read(folder: Path, run: Run) -> Run:
    plan, state = _json(folder / _RUN_STATE), _checkpoint(folder)
    about = _mapping(plan.get("about"))
    if state:
        run = _with_checkpoint(run, state, about)
    run = _with_plan(run, plan)
    failures = len(_list(plan.get("failures")))
    if failures:
        run = replace(run, note=f"{run.note}; restarts: {failures}")
    report = _json(folder / _REPORT)
    began, ended = _utc(about.get("began")), _utc(report.get("date"))
    if began and ended and ended < began:
        return replace(run, note=f"{run.note}; its adapter and report are of an earlier run")
    adapter = folder / _ADAPTER
    if not adapter.is_dir():
        if not report:
            return run
        raise _InvalidFile("it has a report, but no adapter")
    checked = check_folder(adapter)
    manifest = checked.manifest
    note = run.note if run.state == FAILED else ""
    run = replace(run, state=FINISHED, note=note, weights_sha256=checked.weights_sha256)
    if manifest:
        run = _with_manifest(run, manifest)
    return _with_report(run, report) if report else run


# --- the content of each file ---


def _with_checkpoint(run: Run, state: Mapping[str, Any], about: Mapping[str, Any]) -> Run:
    step, last = _integer(state.get("global_step")), _integer(state.get("max_steps"))
    if step is None or last is None:
        raise _InvalidFile(f"{_STATE} of its newest checkpoint has no number of steps")
    history = _history(state)
    losses = [logs["loss"] for logs in history if isinstance(logs.get("loss"), int | float)]
    loss, best = _best_checkpoint(history, _integer(state.get("best_global_step")))
    run = replace(run, steps=step, dev_loss=loss, best_step=best)
    if losses and not math.isfinite(losses[-1]):
        return replace(run, state=FAILED, note=f"the loss is {losses[-1]} at step {step}")
    if step >= last or any("ended" in logs for logs in history):  # before its most steps
        return replace(run, state=TRAINED, note="not evaluated yet; resume with --resume")
    # A run that ends by itself has no number of steps, only a limit, which its checkpoint has.
    of = "" if about.get("max_steps") == "auto" else f" of {last}"
    return replace(run, state=INTERRUPTED, note=f"at step {step}{of}; resume with --resume")


def _with_plan(run: Run, plan: Mapping[str, Any]) -> Run:
    """Add task, base and seed, and whether the last attempt failed."""
    about, failed = _mapping(plan.get("about")), _text(plan.get("gave_up"))
    run = replace(
        run,
        task=_text(about.get("task")),
        base_model=_text(about.get("base_model")),
        num_virtual_tokens=_integer(about.get("num_virtual_tokens")),
        seed=_integer(about.get("seed")),
    )
    return replace(run, state=FAILED, note=failed[:_MAX_NOTE]) if failed else run


def _with_manifest(run: Run, manifest: Manifest) -> Run:
    provenance = manifest.provenance
    mixture = _mapping(provenance.get("mixture"))
    score = next((metric for metric in manifest.metrics if metric.split == "test"), None)
    return replace(
        run,
        task=_text((manifest.task or {}).get("name")) or ", ".join(mixture) or None,
        base_model=manifest.base_model,
        num_virtual_tokens=manifest.num_virtual_tokens,
        score=score,
        seed=_integer(provenance.get("seed")),
        softhub_version=manifest.softhub_version,
        provenance=provenance,
    )


def _with_report(run: Run, report: Mapping[str, Any]) -> Run:
    training = _mapping(report.get("training"))
    loss, best = _best_checkpoint(_history(report), _integer(training.get("best_step")))
    warnings = [text for text in map(_text, _list(report.get("warnings"))) if text]
    config = _mapping(report.get("config"))
    check_value(config, origin=f"config of {_REPORT}")
    return replace(
        run,
        note=" ".join(warnings)[:_MAX_NOTE],
        dev_loss=loss,
        best_step=best,
        steps=_integer(training.get("steps")),
        seconds=_number(training.get("seconds")),
        date=_utc(report.get("date")) or run.date,
        config=config,
    )


# --- files ---


def _checkpoint(folder: Path) -> Mapping[str, Any]:
    """Return the state of the last attempt's newest checkpoint; empty if there is none."""
    restart = _newest(folder, _RESTART)
    newest = (_newest(restart, _CHECKPOINT) if restart else None) or _newest(folder, _CHECKPOINT)
    if newest is None:
        return {}
    state = _json(newest / _STATE)
    if not state:
        raise _InvalidFile(
            f"its newest checkpoint, {newest.name}, has no {_STATE}; delete that folder to resume "
            "from the checkpoint before it"
        )
    return state


def _newest(folder: Path, name: re.Pattern[str]) -> Path | None:
    """Return the subfolder with the highest number in its name."""
    try:
        found = [(match, path) for path in folder.iterdir() if (match := name.fullmatch(path.name))]
    except OSError:
        return None
    numbered = {int(match[1]): path for match, path in found if path.is_dir()}
    return numbered[max(numbered)] if numbered else None


def _json(path: Path) -> Mapping[str, Any]:
    """Return a file's JSON object; empty if there is no such file."""
    data = _bytes(path)
    if not data:
        return {}
    try:
        value = json.loads(data)
    except ValueError as error:
        raise _InvalidFile(f"{path.name} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise _InvalidFile(f"{path.name} contains no JSON object")
    return value


def _bytes(path: Path) -> bytes:
    """Return a regular file's bytes; empty if there is no file."""
    if not path.exists():
        return b""
    if not path.is_file():
        raise _InvalidFile(f"{path.name} is not a regular file")
    if path.stat().st_size > _MAX_BYTES:
        raise _InvalidFile(f"{path.name} is larger than {_MAX_BYTES // 2**20} MiB")
    return path.read_bytes()


def _date(folder: Path) -> str | None:
    """Return the time of the last change to a run's files."""
    checkpoint = _newest(folder, _CHECKPOINT)
    state = [checkpoint / _STATE] if checkpoint else []
    for path in (folder / _REPORT, folder / _RUN_STATE, *state, folder):
        try:
            date = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
        except (OSError, OverflowError, ValueError):
            continue
        return date.isoformat(timespec="seconds")
    return None


# --- values ---


def _best_checkpoint(
    history: Sequence[Mapping[str, Any]], best_step: int | None
) -> tuple[float | None, int | None]:
    """Return dev loss and step of the best checkpoint: the given step, or the lowest loss."""
    pairs = ((_integer(logs.get("step")), _number(logs.get("eval_loss"))) for logs in history)
    losses = {step: loss for step, loss in pairs if step is not None and loss is not None}
    if best_step not in losses:
        best_step = min(losses, key=losses.__getitem__, default=best_step)
    return (None if best_step is None else losses.get(best_step)), best_step


def _history(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    logs = record.get("history", record.get("log_history"))
    return [_mapping(entry) for entry in _list(logs)]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    """Return a finite number of a usual size, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**63:
        return None
    return float(value)


def _integer(value: object) -> int | None:
    """Return a number of steps or a seed, None for anything else."""
    number = _number(value)
    return int(number) if number is not None and number % 1 == 0 else None


def _utc(value: object) -> str | None:
    """Return a date in UTC, None for anything else."""
    try:
        date = datetime.fromisoformat(str(value))
        aware = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
        return aware.astimezone(timezone.utc).isoformat(timespec="seconds")
    except (OverflowError, ValueError):
        return None
