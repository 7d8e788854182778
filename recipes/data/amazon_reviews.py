"""Fetch sentences of customer reviews with human sentiment scores, and split them by review.

    python recipes/data/amazon_reviews.py

Writes `train.jsonl`, `dev.jsonl` and `test.jsonl` to `recipes/data/files/amazon_reviews/`, with one
`{"text": …, "label": "positive" or "negative", "review": …}` per line. Sentences with a mean score
between -1 and 1 are left out, and so are repeated sentences. The sentences of a review stay in one
split, because they reveal each other's sentiment.
"""

import io
import sys
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fetch import assign_groups, check_disjoint, from_pypi, read_tar, run, sha256, without_repeats

ABOUT = """\
Source:  C.J. Hutto & E.E. Gilbert (2014), VADER, ICWSM-14: mean scores of 20 people, from -4 to 4,
         for sentences of customer reviews of five products, collected by M. Hu & B. Liu (2004).
License: the package vaderSentiment is MIT. The sentences belong to their authors: they are
         downloaded for your own use, are not part of softhub, and must not be committed."""

PACKAGE = "vaderSentiment==3.3.2"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SNIPPETS = "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"
SNIPPETS_SHA256 = "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2"

FOLDER = Path(__file__).resolve().parent / "files" / "amazon_reviews"
FILES = {
    "train.jsonl": "2f3b521e90ce2aa514223711d8e698b30499a9d2bf3840d2157ee65037fec7df",
    "dev.jsonl": "e0d234b4f27a7f01966f3403b8df7bc611763d2dcb81db6caffb3efcab0d2664",
    "test.jsonl": "21165f1becdd21e846eed7163a2fb94a34fe4915fb893022f16bd02d8abe234b",
}
EXAMPLES = {"train": 650, "dev": 350}  # at least; all others are for the test split

Row = dict[str, str]


class Sentence(NamedTuple):
    """One sentence: its review, its mean human score (-4 … 4), and its text."""

    review: str
    score: float
    text: str

    @property
    def row(self) -> Row:
        label = "positive" if self.score > 0 else "negative"
        return {"text": self.text, "label": label, "review": self.review}


def make() -> Mapping[str, Sequence[Row]]:
    """Return the rows of each file."""
    # pip runs the package's setup.py to learn its name, but only after it has checked the hash.
    with from_pypi({PACKAGE: SDIST_SHA256}, "--no-binary", "vaderSentiment") as (sdist,):
        sentences = parse(read_snippets(sdist).decode("ascii"))
    rows = without_repeats(item.row for item in sentences if abs(item.score) >= 1)
    return {f"{name}.jsonl": split for name, split in split_by_review(rows).items()}


def read_snippets(sdist: Path) -> bytes:
    """Return the file of sentences in the tar in the tar, without unpacking anything."""
    with tarfile.open(sdist) as package:
        archive = read_tar(package, ARCHIVE)
    with tarfile.open(fileobj=io.BytesIO(archive)) as resources:
        data = read_tar(resources, SNIPPETS)
    if sha256(data) != SNIPPETS_SHA256:
        raise ValueError(f"{SNIPPETS} has sha256 {sha256(data)}; expected {SNIPPETS_SHA256}")
    return data


def parse(snippets: str) -> list[Sentence]:
    """Read lines of `id<TAB>mean score<TAB>sentence`; the id is `<review>_<number>`."""
    sentences = []
    for number, line in enumerate(snippets.splitlines(), start=1):
        try:
            identifier, score, text = line.split("\t")
            sentences.append(Sentence(identifier.split("_")[0], float(score), text.strip()))
        except ValueError as error:
            raise ValueError(
                f"line {number}: found {line!r:.80}; expected three columns"
            ) from error
    return sentences


def split_by_review(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Assign whole reviews to train, then dev, then test."""
    home = assign_groups(Counter(row["review"] for row in rows), EXAMPLES, rest="test")
    splits = {
        name: [row for row in rows if home[row["review"]] == name]
        for name in ("train", "dev", "test")
    }
    check_disjoint(splits, ["review", "text"])
    return splits


if __name__ == "__main__":
    sys.exit(run(ABOUT, FOLDER, FILES, make))
