"""Dividing one table into train, dev and test: whole groups, no text on two sides."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from softhub.errors import DatasetError
from softhub.tasks.dataset import SPLITS
from softhub.tasks.drafting.columns import Roles
from softhub.tasks.drafting.sources import Table
from softhub.tasks.drafting.templates import labels_in

_PARTS = 10
# Of every ten pieces one is for dev and one for test, the last ones: few pieces are for training.
_PLACES = {8: "dev", 9: "test"}


def same_text(values: Sequence[object]) -> str:
    """Return what is equal for texts that differ in case or white space only."""
    return " ".join(" ".join(map(str, values)).split()).casefold()


def divide(table: Table, roles: Roles, *, seed: int) -> Mapping[str, list[int]]:
    """Divide rows 80 : 10 : 10, the same way for the same seed.

    Rows in which something is missing are left out. Where there is a group column, groups stay
    whole, and a row of dev or test whose text is in train too is left out; else rows of the same
    text stay together, and each label is divided like the whole.

    Args:
        table: The rows.
        roles: What the columns are.
        seed: Chooses the division.

    Returns:
        For each split the numbers of its rows.

    Raises:
        DatasetError: If there are too few pieces to divide.
    """
    pieces = _pieces(table, roles)
    if len(pieces) < _PARTS:
        what = f"groups by {roles.group!r}" if roles.group else "different texts"
        raise DatasetError(
            f"{table.place(0)} and on: {len(pieces)} {what}; expected {_PARTS} or more to divide. "
            f"Give files of their own with --dev and --test, or leave --split out"
        )
    stratified = roles.kind == "classification" and roles.group is None
    answers = table.columns[roles.answer]

    def order(piece: str) -> tuple[str, bytes]:
        label = str(answers[pieces[piece][0]]) if stratified else ""
        return label, hashlib.sha256(f"{seed}:{piece}".encode("utf-8", "surrogatepass")).digest()

    parts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for number, piece in enumerate(sorted(pieces, key=order)):
        parts[_PLACES.get(number % _PARTS, "train")].append(piece)
    if roles.kind == "classification":
        labels = {
            piece: {label for row in rows for label in labels_in(answers[row])}
            for piece, rows in pieces.items()
        }
        _keep_labels_in_train(parts, labels)
    divided = {split: [row for piece in parts[split] for row in pieces[piece]] for split in SPLITS}
    if roles.group is not None:
        _drop_known_texts(divided, table, roles)
    _check_filled(divided, table)
    return {split: sorted(rows) for split, rows in divided.items()}


def _pieces(table: Table, roles: Roles) -> Mapping[str, list[int]]:
    pieces: dict[str, list[int]] = defaultdict(list)
    for row in table.whole:
        if roles.group is not None:
            key = str(table.columns[roles.group][row])
        else:
            key = same_text([table.columns[column][row] for column in roles.texts])
        pieces[key].append(row)
    return pieces


def _keep_labels_in_train(parts: dict[str, list[str]], labels: Mapping[str, set[str]]) -> None:
    """What stands nowhere in train could not be learned: move its pieces there."""
    known = {label for piece in parts["train"] for label in labels[piece]}
    for split in ("dev", "test"):
        moved = [piece for piece in parts[split] if not labels[piece] <= known]
        parts["train"] += moved
        parts[split] = [piece for piece in parts[split] if labels[piece] <= known]


def _check_filled(parts: Mapping[str, Sequence[int]], table: Table) -> None:
    for split, rows in parts.items():
        if not rows:
            raise DatasetError(
                f"{table.place(0)} and on: nothing is left for {split}, because its labels or "
                f"texts stand in train alone; give files of their own with --dev and --test"
            )


def _drop_known_texts(parts: dict[str, list[int]], table: Table, roles: Roles) -> None:
    def text(row: int) -> str:
        return same_text([table.columns[column][row] for column in roles.texts])

    known: set[str] = set()
    for split, rows in parts.items():
        if split != "train":
            parts[split] = rows = [row for row in rows if text(row) not in known]
        known |= {text(row) for row in rows}
