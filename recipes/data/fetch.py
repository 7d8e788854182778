"""Download a pinned package, read files out of it, and write examples: shared by all data scripts.

A package is read and never installed, and nothing of it is run. Its hash is checked before it is
opened. Written files are complete or not there.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

MAX_BYTES = 512 * 2**20

Row = Mapping[str, str]
Splits = dict[str, list]


def run(
    about: str,
    folder: Path,
    files: Mapping[str, str],
    make: Callable[[], Mapping[str, Sequence[Row] | bytes]],
) -> int:
    """Write the files of a data script, and return its exit code.

    Args:
        about: Source and license of the data, which are printed.
        folder: Folder of the files.
        files: Names of the files and their sha256; if all are there, nothing is done.
        make: Returns the content of each file: rows, which are written as JSONL, or bytes.
    """
    print(about, flush=True)
    if have_files(folder, files):
        print(f"Nothing to do: {folder} has all files.")
        return 0
    try:
        made = make()
        for name, content in made.items():
            write_file(folder / name, content if isinstance(content, bytes) else jsonl(content))
    except (OSError, ValueError, LookupError, SyntaxError, zipfile.BadZipFile) as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        return 1
    for name, content in made.items():
        if not isinstance(content, bytes):
            print(f"{name}: {len(content)} rows")
    print(f"Written to {folder}")
    return 0


def have_files(folder: Path, files: Mapping[str, str]) -> bool:
    """Tell whether all files are there, byte for byte."""
    return all(
        (folder / name).is_file() and sha256((folder / name).read_bytes()) == expected
        for name, expected in files.items()
    )


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def jsonl(rows: Iterable[Row]) -> bytes:
    """Return rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")


def write_file(path: Path, data: bytes) -> None:
    """Write a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")  # of this run alone
    unfinished.write_bytes(data)
    unfinished.replace(path)


# --- packages ---


@contextmanager
def from_pypi(packages: Mapping[str, str], *options: str) -> Iterator[list[Path]]:
    """Download packages with pip into a temporary folder.

    Args:
        packages: `name==version` and the sha256 of the wheel, or of the source distribution.
        *options: More options of `pip download`; by default, only wheels are accepted.
    """
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        lines = (f"{package} --hash=sha256:{expected}\n" for package, expected in packages.items())
        requirements.write_text("".join(lines), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", *(options or ["--only-binary=:all:"])]
        command += ["--dest", folder, "--requirement", str(requirements)]
        download(command, ", ".join(packages))
        requirements.unlink()
        yield sorted(Path(folder).iterdir())


@contextmanager
def from_npm(package: str, integrity: str) -> Iterator[Path]:
    """Download a package with npm into a temporary folder.

    Args:
        package: `name@version`.
        integrity: The base64 SHA-512 of the package, as npm's registry gives it.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("npm, which downloads the data, was not found; install Node.js")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", package, "--ignore-scripts", "--fetch-retries=1"]
        command += ["--loglevel=error", "--pack-destination", folder]
        download(command, package, cwd=folder)
        archive = next(Path(folder).glob("*.tgz"))
        check_integrity(archive, integrity)
        yield archive


def check_integrity(archive: Path, integrity: str) -> None:
    """Raise if an npm package has another hash than expected."""
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != integrity:
        raise ValueError(f"{archive.name} has sha512 {found}; expected {integrity}")


def download(command: Sequence[str], packages: str, cwd: str | None = None) -> None:
    """Run pip or npm, and raise with its last error message if it fails."""
    tool = "npm" if cwd else "pip"
    print(f"Downloading {packages} with {tool} …", file=sys.stderr)
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        error = errors[0 if tool == "npm" else -1] if errors else "no message"
        raise OSError(
            f"{tool} could not download {packages}: {error}\n"
            f"Check the network connection (or {tool}'s registry) and run this again."
        )


def read_wheel(wheel: Path, *names: str) -> list[bytes]:
    """Return members of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return [archive.read(name) for name in names]


def read_tar(archive: tarfile.TarFile, name: str) -> bytes:
    """Return one regular file of a tar archive."""
    try:
        member = archive.getmember(name)
    except KeyError:
        raise ValueError(f"the archive has no {name}; it is another package") from None
    stream: IO[bytes] | None = archive.extractfile(member) if member.isfile() else None
    if stream is None or member.size > MAX_BYTES:
        raise ValueError(f"{name} is not a regular file of at most {MAX_BYTES} bytes")
    return stream.read()


# --- splits ---


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text, without case and punctuation."""
    return tuple(re.findall(r"\w+", text.lower()))


def without_repeats(rows: Iterable[Row], column: str = "text") -> list[Row]:
    """Return the first of the rows that have the same words in a column."""
    first: dict[tuple[str, ...], Row] = {}
    for row in rows:
        first.setdefault(words(row[column]), row)
    return list(first.values())


def assign_groups(
    sizes: Mapping[str, int], wanted: Mapping[str, int], rest: str, largest: int | None = None
) -> dict[str, str]:
    """Assign whole groups to splits, in the order of their hashes.

    Args:
        sizes: Number of rows of each group.
        wanted: The splits to fill one after the other, and the least number of rows of each.
        rest: The split of all other groups, and of those that are too large.
        largest: Rows of a group that is not too large; None for any number.
    """
    home: dict[str, str] = {}
    filled: Counter[str] = Counter()
    for group in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        unfilled = (split for split, number in wanted.items() if filled[split] < number)
        small = largest is None or sizes[group] <= largest
        home[group] = next(unfilled, rest) if small else rest
        filled[home[group]] += sizes[group]
    return home


def split_rows(rows: Sequence[Row], home: Mapping[str, str]) -> Splits:
    """Return train, dev and test: each row in the split of its group, or in train."""
    return {
        split: [row for row in rows if home.get(row["group"], "train") == split]
        for split in ("train", "dev", "test")
    }


def without_runs(
    rows: Sequence[Row], others: Sequence[Row], columns: Iterable[str], length: int
) -> list[Row]:
    """Return the rows that share no run of words with one of the others, in any of the columns."""
    columns = list(columns)
    taken = {column: runs((row[column] for row in others), length) for column in columns}
    return [
        row
        for row in rows
        if not any(runs([row[column]], length) & taken[column] for column in columns)
    ]


def runs(texts: Iterable[str], length: int) -> set[tuple[str, ...]]:
    """Return all runs of `length` words; of a shorter text all of it."""
    found = set()
    for text in map(words, texts):
        starts = range(max(1, len(text) - length + 1))
        found.update(text[start : start + length] for start in starts)
    return found


def check_disjoint(splits: Mapping[str, Sequence[Row]], columns: Iterable[str]) -> None:
    """Raise if two splits share a value of a column, up to case and punctuation."""
    for column in columns:
        sets = [{words(row[column]) for row in rows} for rows in splits.values()]
        if sum(map(len, sets)) != len(set().union(*sets)):
            raise ValueError(f"two splits share a {column}; they must not")
