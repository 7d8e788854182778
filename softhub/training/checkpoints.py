"""Which checkpoint a run goes on from: the newest that is whole, and of this run."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

from accelerate import PartialState
from transformers.trainer import TRAINER_STATE_NAME

logger = logging.getLogger("softhub")

_NAME = re.compile(r"checkpoint-(\d+)")


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest checkpoint of a run's folder that was written to its end; None if there is none.

    transformers writes the trainer's state last, so a checkpoint without one was cut short.
    """
    whole = [path for path in _checkpoints(Path(folder)) if _is_whole(path)]
    return str(max(whole, key=_step)) if whole else None


def set_aside_checkpoints(folder: str | Path) -> None:
    """Give the checkpoints of an earlier run in this folder another name, and say so.

    A run that begins anew would else be resumed from them, with its own seed and rate in the card.
    """
    state = PartialState()
    if state.is_main_process:
        below = [Path(folder), *sorted(Path(folder).glob("restart-*"))]
        old = [path for part in below for path in _checkpoints(part)]
        for path in old:
            _replace(path, path.with_name(f"earlier-{path.name}"))
        if old:
            logger.warning(
                "Beginning anew in %s; the checkpoints of the run that was there are now called "
                "earlier-checkpoint-….",
                folder,
            )
    state.wait_for_everyone()


def _replace(path: Path, name: Path) -> None:
    if name.exists():
        shutil.rmtree(name)
    path.rename(name)


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
