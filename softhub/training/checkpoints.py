"""Checkpoints of a run: which are complete, which is the last, and those of an earlier run."""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import SAFE_WEIGHTS_NAME

from softhub.errors import TrainingError

logger = logging.getLogger("softhub")

_NAME = re.compile(r"checkpoint-(\d+)")
_EARLIER = "earlier-"
_SHARDED = ("pytorch_model*", "global_step*")  # weights as FSDP and DeepSpeed write them


def last_checkpoint(folder: str | Path) -> str | None:
    """Return the newest complete checkpoint in a run's folder; None if there is none.

    transformers writes the trainer's state last, so a checkpoint without one is incomplete. So is
    one with a damaged file.
    """
    complete = [path for path in _checkpoints(Path(folder)) if is_complete(path)]
    newest = max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    return str(newest) if newest else None


def set_aside_checkpoints(folder: str | Path) -> None:
    """Rename the checkpoints of an earlier run in this folder, and log it.

    Otherwise a new run could later be resumed from them, with a seed and a learning rate that are
    not its own. Checkpoints of the run before that one, which were renamed already, are deleted.
    """
    state = PartialState()
    if state.is_main_process:
        below = [Path(folder), *sorted(Path(folder).glob("restart-*"))]
        old = [path for part in below for path in _checkpoints(part)]
        if old:
            for path in (path for part in below for path in part.glob(f"{_EARLIER}checkpoint-*")):
                shutil.rmtree(path, ignore_errors=True)
            for path in old:
                path.rename(path.with_name(_EARLIER + path.name))
            logger.warning(
                "Starting a new run in %s; the checkpoints of the earlier run there were renamed "
                "to earlier-checkpoint-….",
                folder,
            )
    state.wait_for_everyone()


def check_writable(output_dir: str | Path) -> None:
    """Check that a run can write to its folder, before anything takes long.

    Raises:
        TrainingError: The folder cannot be written to.
    """
    folder = Path(output_dir)
    present = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=present):
            pass
    except OSError as error:
        raise TrainingError(
            f"output_dir {str(folder)!r} cannot be written to: {error.strerror or error}. Choose "
            "a folder that can."
        ) from error


def is_resumable(folder: str | Path) -> bool:
    """Return whether a run has a complete checkpoint, in its folder or in one of its parts."""
    return any(map(last_checkpoint, (Path(folder), *Path(folder).glob("*/"))))


def check_resumable(folder: str | Path) -> None:
    """Check that a run has a checkpoint, in its folder or in one of its parts, before it is loaded.

    Raises:
        TrainingError: There is no complete checkpoint.
    """
    if not is_resumable(folder):
        raise TrainingError(
            f"Nothing to resume in {str(folder)!r}: no checkpoint was found there. Check "
            "output_dir, or start without resume."
        )


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]


def is_complete(checkpoint: Path) -> bool:
    """Return whether nothing of a checkpoint is missing or damaged, as far as formats tell."""
    weights = checkpoint / SAFE_WEIGHTS_NAME
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        if weights.is_file():
            with safe_open(weights, framework="pt"):  # checks that no part is missing
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    archives = [path for pattern in ("*.pt", "*.pth") for path in checkpoint.glob(pattern)]
    written = weights.is_file() or any(
        path for pattern in _SHARDED for path in checkpoint.glob(pattern)
    )
    return written and all(map(zipfile.is_zipfile, archives))
