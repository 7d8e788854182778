"""Split one table into train, dev and test; no group and no text is in two splits."""

from __future__ import annotations

import hashlib
from collections import defaultdict

from softhub.errors import DatasetError
from softhub.tasks.dataset import SPLITS
from softhub.tasks.drafting.columns import Roles
from softhub.tasks.drafting.rows import Row, RowSet

_PARTS = 10
# Of every ten pieces the last two are for dev and test: if there are few, they are for training.
_PLACES = {8: "dev", 9: "test"}


def divide(table: RowSet, roles: Roles, *, seed: int) -> dict[str, RowSet]:
    """Divide the complete rows 80 : 10 : 10, the same way for the same seed.

    With a group column, groups are not divided, and a row of dev or test whose text is in train too
    is left out; without one, rows of the same text stay together, and each label is divided in the
    same proportions.
    """
    pieces: dict[str, list[Row]] = defaultdict(list)  # rows that stay together
    for row in table.rows:
        pieces[row.key if row.group is None else row.group].append(row)
    start = f"{table.place(0)} and following"
    if len(pieces) < _PARTS:
        found = f"groups by {roles.group!r}" if roles.group else "different texts"
        raise DatasetError(
            f"{start}: found {len(pieces)} {found}; expected {_PARTS} or more to divide. Give "
            f"separate files with --dev and --test, or remove --split"
        )
    known: set[str] = set()
    divided: dict[str, RowSet] = {}
    for split, part in _parts(pieces, roles, seed).items():
        rows = [row for piece in part for row in pieces[piece] if row.key not in known]
        known |= {row.key for row in rows}
        if not rows:
            raise DatasetError(
                f"{start}: nothing is left for {split}, because its labels or texts are in train "
                f"only; give separate files with --dev and --test"
            )
        rows.sort(key=lambda row: row.index)
        divided[split] = RowSet(rows, table.place, len(rows))
    return divided


def _parts(pieces: dict[str, list[Row]], roles: Roles, seed: int) -> dict[str, list[str]]:
    """Divide the pieces, so that every label of dev and test is in train too."""
    classification = roles.kind == "classification"

    def order(piece: str) -> tuple[str, bytes]:
        stratified = classification and roles.group is None
        label = str(pieces[piece][0].values[roles.answer]) if stratified else ""
        return label, hashlib.sha256(f"{seed}:{piece}".encode("utf-8", "surrogatepass")).digest()

    parts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for number, piece in enumerate(sorted(pieces, key=order)):
        parts[_PLACES.get(number % _PARTS, "train")].append(piece)
    if classification:
        labels = {p: {label for row in rows for label in row.labels} for p, rows in pieces.items()}
        known = {label for piece in parts["train"] for label in labels[piece]}
        for split in ("dev", "test"):
            parts["train"] += [piece for piece in parts[split] if not labels[piece] <= known]
            parts[split] = [piece for piece in parts[split] if labels[piece] <= known]
    return parts
