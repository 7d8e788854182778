"""The data of a task that is not yet written: files, or a dataset on the Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from softhub.config import expand_user, hub_answers
from softhub.errors import DatasetError
from softhub.tasks.data_files import check_table, is_saved_dataset, is_table
from softhub.tasks.dataset import SPLITS, DatasetSource
from softhub.tasks.split_table import SplitTable, dataset_errors, read_split

Place = TypeVar("Place")

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
# The names that datasets give to the splits that softhub calls train, dev and test.
_SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "dev": ("validation", "dev", "valid", "val", "development", "eval"),
    "test": ("test", "testing"),
}
_SHARD = re.compile(r"-\d+-of-\d+$")
_PLAIN_STEMS = ("train", "training", "data", "dataset", "all")


@dataclass(frozen=True)
class Source:
    """Data to draft a task from."""

    dataset: DatasetSource  # data files are absolute
    rows: Mapping[str, SplitTable]  # of each split
    name: str  # what the task might be called
    origin: str  # the file or dataset as it was given


def find_source(
    place: str,
    *,
    dev: Path | None = None,
    test: Path | None = None,
    subset: str | None = None,
) -> Source:
    """Read local files, or a dataset on the Hub.

    Args:
        place: A data file, a folder that `save_to_disk` wrote or with a file for each split, or
            the id of a dataset on the Hub.
        dev: A second file, for dev.
        test: A third one, for test.
        subset: Configuration of the Hub's dataset, if it has several.

    Raises:
        DatasetError: If the data is missing, empty or damaged; names file and line.
    """
    if not place.strip():
        raise DatasetError(
            "the name of the data is empty; name a file, a folder, or a dataset on the Hub"
        )
    path = expand_user(place)
    is_local = path.exists() or is_table(path) or not _HUB_ID.fullmatch(place)
    is_folder = path.is_dir() and not is_saved_dataset(path)
    if (dev or test) and (is_folder or not is_local):
        kind = "a folder" if is_folder else "read as a dataset on the Hub"
        raise DatasetError(f"{place} is {kind}, with its own splits; remove --dev and --test")
    if is_local:
        if subset is not None:
            raise DatasetError(f"{path} is not on the Hub and has no subset; remove --subset")
        dataset = _folder(path) if is_folder else _files(path, dev, test)
        full = path.resolve()
        stem = full.name if full.is_dir() else full.name.removesuffix(".gz").rpartition(".")[0]
        name = full.parent.name if stem.lower() in _PLAIN_STEMS else stem
    else:
        dataset, name = _hub(place, subset), place.rpartition("/")[2]
    rows = {split: read_split(dataset, split) for split in dataset.split_names}
    return Source(dataset, rows, name, path.name if dataset.path is None else place)


def _files(path: Path, dev: Path | None, test: Path | None) -> DatasetSource:
    files: dict[str, str] = {}
    for split, file in zip(SPLITS, (path, dev, test), strict=True):
        if file is None:
            continue
        file = expand_user(file)
        check_table(file, fix="check the path, or give the id of a dataset on the Hub")
        if str(file.resolve()) in files.values():
            raise DatasetError(f"{file}: is given twice; each split needs its own rows")
        files[split] = str(file.resolve())
    return DatasetSource(data_files=files)


def _folder(folder: Path) -> DatasetSource:
    """Return the file of each split in a folder; a lone file is the train split."""
    tables = [path for path in sorted(folder.iterdir()) if is_table(path)]
    found = _by_split(
        {path: _SHARD.sub("", path.name.partition(".")[0].lower()) for path in tables}
    )
    if not found and len(tables) == 1:
        found["train"] = tables
    listed = ", ".join(path.name for path in tables) or "none that can be read"
    if "train" not in found:
        raise DatasetError(
            f"{folder}: expected data files for train, validation and test in this folder, such as "
            f"train.csv; found {listed}. Name a file"
        )
    for split, paths in found.items():
        if len(paths) > 1:
            raise DatasetError(f"{folder}: has several files for {split} ({listed}); join them")
    return DatasetSource(data_files={split: str(found[split][0].resolve()) for split in found})


def _by_split(places: Mapping[Place, str]) -> dict[str, list[Place]]:
    """Return the places with a name of each split, the most usual name first."""
    return {
        split: [place for name in names for place in places if places[place] == name]
        for split, names in _SPLIT_NAMES.items()
        if set(names) & {*places.values()}
    }


def _hub(place: str, subset: str | None) -> DatasetSource:
    from datasets import get_dataset_config_names, get_dataset_split_names
    from huggingface_hub import constants

    if not (constants.HF_HUB_OFFLINE or hub_answers()):  # `datasets` would retry for minutes
        reason = "there is no such file, and the Hub did not answer; check path and network"
        raise DatasetError(f"{place}: {reason}")
    with dataset_errors(f"dataset {place}"):
        subsets = get_dataset_config_names(place)
    if subset is None and len(subsets) == 1:
        subset = subsets[0]
    if subset not in subsets:
        raise DatasetError(
            f"dataset {place}: {'choose a subset' if subset is None else f'has no {subset!r}'}; "
            f"use --subset with one of {', '.join(subsets)}"
        )
    with dataset_errors(f"dataset {place}"):
        found = get_dataset_split_names(place, subset)
    splits = {split: names[0] for split, names in _by_split({n: n for n in found}).items()}
    if "train" not in splits:
        raise DatasetError(
            f"dataset {place}: has no train split, only {', '.join(found)}; write the task file by "
            f"hand, with dataset: {{path: {place}, splits: {{train: {found[0]}, …}}}}"
        )
    return DatasetSource(path=place, name=None if subset == "default" else subset, splits=splits)
