"""Fetch the sentences of a web site in six languages, and split them by the page they are on.

    python recipes/data/scratch_translations.py

Writes `train.jsonl`, `dev.jsonl` and `test.jsonl` to `recipes/data/files/scratch_translations/`,
with one text in each language per line: `{"en": …, "fr": …, "de": …, "es": …, "it": …, "pt": …,
"group": …}`. A task chooses its direction by its columns, and no text is in another split in
another language.

Texts that belong together (such as the questions and answers of one page) have keys with the same
beginning. Such a family (group) is in one split only. Families with more than 40 texts are in
train. Texts that share five consecutive words with the test split are then removed from train and
dev, and those that share them with dev from train.

npm, which comes with Node.js, downloads the package; nothing of it is run.
"""

import json
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fetch import (
    assign_groups,
    check_disjoint,
    from_npm,
    run,
    split_rows,
    without_runs,
    words,
)

ABOUT = """\
Source:  the texts of the web site of Scratch (https://scratch.mit.edu) and their translations, most
         of them by volunteers, from the npm package scratch-l10n 3.18.357.
License: BSD-3-Clause, copyright (c) 2016, Massachusetts Institute of Technology. 'Scratch' is a
         trademark; neither its owner nor the institute endorses softhub."""

PACKAGE = "scratch-l10n@3.18.357"
INTEGRITY = (
    "Rs3YmUa2dzpYqT1O/YT15g99sIwnC7j9TOOmOhUphVKLeiYUvJWiRPKZCugA7/hbIMYZV5VLkmuDgGXhgfSOBw=="
)
LANGUAGES = {"en": "en", "fr": "fr", "de": "de", "es": "es", "it": "it", "pt": "pt-br"}
MEMBER = re.compile(r"package/(?:www|editor)/(?:scratch-website\.)?([^/]+)/([a-z-]+)\.json")

# Code, placeholders, markup, and invisible characters.
NOT_TEXT = re.compile(r"[{}<>\\\[\]%@#\u200b]|https?:|www\.|\.(?:com|org|edu)\b")
FEWEST_WORDS, MOST_WORDS = 3, 25  # of the English text
SHARED_WORDS = 5
LARGEST_FAMILY = 40
EXAMPLES = {"test": 300, "dev": 150}  # at least; the rest is for training

FOLDER = Path(__file__).resolve().parent / "files" / "scratch_translations"
FILES = {
    "train.jsonl": "3eac9387e559e9bc0d64866170a426c6a20a7202ce06690492790787f15bca53",
    "dev.jsonl": "b2da2bc1787691081ce8ebd672d04a70f021bdc379c6030804641d85263115ec",
    "test.jsonl": "8bad80d6364a197cb753d91a9d84a195c837556d46f933ce0dacd4418eb23144",
}

Row = dict[str, str]
Texts = dict[str, dict[str, str]]  # language -> page/key -> text


def make() -> Mapping[str, Sequence[Row] | bytes]:
    """Return the content of each file."""
    with from_npm(PACKAGE, INTEGRITY) as package:
        splits = split_by_family(list(parallel_texts(read_texts(package))))
    files: dict[str, Sequence[Row] | bytes] = {f"{k}.jsonl": rows for k, rows in splits.items()}
    return {**files, "ABOUT.txt": f"{ABOUT}\n".encode()}


def read_texts(package: Path) -> Texts:
    """Read the languages from the package without unpacking it."""
    codes = {code: language for language, code in LANGUAGES.items()}
    texts: Texts = {language: {} for language in LANGUAGES}
    with tarfile.open(package) as archive:
        for member in archive:
            place = MEMBER.fullmatch(member.name)
            if place is None or place[2] not in codes or not member.isfile():
                continue
            stream = archive.extractfile(member)
            assert stream is not None
            page = re.sub(r"-l10njson$", "", place[1])
            for key, text in json.load(stream).items():
                texts[codes[place[2]]][f"{page}/{key}"] = " ".join(text.split())
    return texts


def parallel_texts(texts: Texts) -> Iterator[Row]:
    """Yield the texts that are valid in every language; repeated texts are left out."""
    known: set[tuple[str, ...]] = set()
    for key, english in sorted(texts["en"].items()):
        row = {language: texts[language].get(key, "") for language in LANGUAGES}
        if not FEWEST_WORDS <= len(english.split()) <= MOST_WORDS:
            continue
        if any(not text or NOT_TEXT.search(text) for text in row.values()):
            continue
        others = [words(text) for language, text in row.items() if language != "en"]
        if words(english) in known or words(english) in others:
            continue  # repeated, or not translated
        known.add(words(english))
        yield {**row, "group": family(key)}


def family(key: str) -> str:
    """Return the page and the first part of the key; yearly reports are one family."""
    page, _, name = key.partition("/")
    page = re.sub(r"[-_]?\d{4}|[-_]index", "", page)
    if page in ("annual-report", "conference"):
        return page
    first = re.match(r"[A-Za-z]+", name.removeprefix("gui."))
    return f"{page}/{first[0] if first else ''}"


def split_by_family(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Assign whole families to test, then dev, then train, and remove what they share."""
    sizes = Counter(row["group"] for row in rows)
    home = assign_groups(sizes, EXAMPLES, rest="train", largest=LARGEST_FAMILY)
    splits = split_rows(rows, home)
    others = splits["test"]
    for split in ("dev", "train"):
        splits[split] = without_runs(splits[split], others, LANGUAGES, SHARED_WORDS)
        others = [*splits[split], *others]
    check_disjoint(splits, ["group", *LANGUAGES])
    return splits


if __name__ == "__main__":
    sys.exit(run(ABOUT, FOLDER, FILES, make))
