"""Fetch the sentences of a web site in six languages, and split them by where they stand.

    python recipes/data/scratch_translations.py

writes `train.jsonl`, `dev.jsonl` and `test.jsonl` into `recipes/data/files/scratch_translations/`,
one text a line in each language: `{"en": …, "fr": …, "de": …, "es": …, "it": …, "pt": …,
"group": …}`. A task chooses its direction by its columns, and no text is in another split in
another language.

Texts that belong together (the questions and answers of one page, say) have keys that begin alike.
Such a family (group) goes to one split as a whole. Families with more than 40 texts stay in train.
What shares five words in a row with the test split is then taken out of train and dev, and what
shares them with dev out of train.

npm, which comes with Node.js, downloads the package; nothing of it is run.
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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

ABOUT = """\
Source:  the texts of the web site of Scratch (https://scratch.mit.edu) and their translations, the
         most of them by volunteers, out of the npm package scratch-l10n 3.18.357.
Licence: BSD-3-Clause, copyright (c) 2016, Massachusetts Institute of Technology. 'Scratch' is a
         trademark; neither it nor the institute stands behind softhub."""

PACKAGE = "scratch-l10n@3.18.357"
INTEGRITY = (
    "Rs3YmUa2dzpYqT1O/YT15g99sIwnC7j9TOOmOhUphVKLeiYUvJWiRPKZCugA7/hbIMYZV5VLkmuDgGXhgfSOBw=="
)
LANGUAGES = {"en": "en", "fr": "fr", "de": "de", "es": "es", "it": "it", "pt": "pt-br"}
MEMBER = re.compile(r"package/(?:www|editor)/(?:scratch-website\.)?([^/]+)/([a-z-]+)\.json")

# Code, placeholders, marks of web pages, and signs that cannot be seen.
NOT_TEXT = re.compile(r"[{}<>\\\[\]%@#\u200b]|https?:|www\.|\.(?:com|org|edu)\b")
FEWEST_WORDS, MOST_WORDS = 3, 25  # of the English text
SHARED_WORDS = 5
LARGEST_FAMILY = 40
EXAMPLES = {"test": 300, "dev": 150}  # at least; the rest is for training

FOLDER = Path(__file__).resolve().parent / "files" / "scratch_translations"
# What this script writes; it is done when these files lie there.
FILES = {
    "train": "3eac9387e559e9bc0d64866170a426c6a20a7202ce06690492790787f15bca53",
    "dev": "b2da2bc1787691081ce8ebd672d04a70f021bdc379c6030804641d85263115ec",
    "test": "8bad80d6364a197cb753d91a9d84a195c837556d46f933ce0dacd4418eb23144",
}

Row = dict[str, str]
Texts = dict[str, dict[str, str]]  # language -> page/key -> text


def main() -> int:
    """Make the three files, or say why they cannot be made."""
    print(ABOUT)
    if have_files(FOLDER):
        print(f"Nothing to do: {FOLDER} has all the files.")
        return 0
    try:
        splits = split_by_family(list(parallel_texts(fetch_texts())))
        write_files(FOLDER, splits)
        (FOLDER / "ABOUT.txt").write_text(ABOUT + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"scratch_translations: {error}", file=sys.stderr)
        return 1
    for name, rows in splits.items():
        print(f"{name}: {len(rows)} texts of {len({row['group'] for row in rows})} families")
    print(f"Written to {FOLDER}")
    return 0


def have_files(folder: Path) -> bool:
    """Whether the three files are there, byte for byte."""
    paths = {folder / f"{name}.jsonl": sha256 for name, sha256 in FILES.items()}
    return all(
        path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        for path, sha256 in paths.items()
    )


def fetch_texts() -> Texts:
    """Download the package with npm, and return the texts in it."""
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("npm was not found, which downloads the texts; install Node.js (it has npm).")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", PACKAGE, "--ignore-scripts", "--fetch-retries=1"]
        print(f"Fetching {PACKAGE} with npm …", file=sys.stderr)
        done = subprocess.run(
            [*command, "--loglevel=error", "--pack-destination", folder],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        package = next(Path(folder).glob("*.tgz"), None)
        if done.returncode != 0 or package is None:
            raise OSError(
                f"npm could not download {PACKAGE}; it said: {said(done.stderr)}\n"
                f"Check the network connection (or npm's registry) and run this again."
            )
        return read_texts(package)


def said(output: str) -> str:
    """What npm calls the error, in one line."""
    lines = [line for line in output.strip().splitlines() if " error " in f" {line} "]
    return lines[0] if lines else "nothing"


def read_texts(package: Path) -> Texts:
    """Read the languages out of the package without unpacking it, after its hash is checked."""
    found = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    if found != INTEGRITY:
        raise ValueError(f"{PACKAGE} has sha512 {found}; expected {INTEGRITY}")
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
    """Rows of the texts that are sound in every language; what was said before is left out."""
    said_before: set[tuple[str, ...]] = set()
    for key, english in sorted(texts["en"].items()):
        row = {language: texts[language].get(key, "") for language in LANGUAGES}
        if not FEWEST_WORDS <= len(english.split()) <= MOST_WORDS:
            continue
        if any(not text or NOT_TEXT.search(text) for text in row.values()):
            continue
        others = [words(text) for language, text in row.items() if language != "en"]
        if words(english) in said_before or words(english) in others:
            continue  # said before, or not translated
        said_before.add(words(english))
        yield {**row, "group": family(key)}


def family(key: str) -> str:
    """The page and the first part of the key; reports and conferences are alike in all years."""
    page, _, name = key.partition("/")
    page = re.sub(r"[-_]?\d{4}|[-_]index", "", page)
    if page in ("annual-report", "conference"):
        return page
    first = re.match(r"[A-Za-z]+", name.removeprefix("gui."))
    return f"{page}/{first[0] if first else ''}"


def words(text: str) -> tuple[str, ...]:
    """The words of a text, without case and marks."""
    return tuple(re.findall(r"\w+", text.lower()))


def split_by_family(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Deal whole families, in the order of their hashes, to test, then dev, then train."""
    sizes = Counter(row["group"] for row in rows)
    home: dict[str, str] = {}
    filled: Counter[str] = Counter()
    for name in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        open_splits = (split for split, wanted in EXAMPLES.items() if filled[split] < wanted)
        home[name] = next(open_splits, "train") if sizes[name] <= LARGEST_FAMILY else "train"
        filled[home[name]] += sizes[name]
    splits = {name: [row for row in rows if home[row["group"]] == name] for name in FILES}
    splits["dev"] = without_runs(splits["dev"], splits["test"])
    splits["train"] = without_runs(splits["train"], [*splits["dev"], *splits["test"]])
    check_no_leak(splits)
    return splits


def without_runs(rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """Leave out rows that share five words in a row with one of the others, in any language."""
    taken = {language: runs(row[language] for row in others) for language in LANGUAGES}
    return [
        row
        for row in rows
        if not any(runs([row[language]]) & taken[language] for language in LANGUAGES)
    ]


def runs(texts: Iterable[str]) -> set[tuple[str, ...]]:
    """All runs of five words; of a shorter text all of it."""
    found = set()
    for text in map(words, texts):
        starts = range(max(1, len(text) - SHARED_WORDS + 1))
        found.update(text[start : start + SHARED_WORDS] for start in starts)
    return found


def check_no_leak(splits: Mapping[str, Sequence[Row]]) -> None:
    """Refuse splits that share a family or a text in any language."""
    for what in ("group", *LANGUAGES):
        sets = [{words(row[what]) for row in rows} for rows in splits.values()]
        if sum(map(len, sets)) != len(set().union(*sets)):
            raise ValueError(f"two splits share a {what}; they must not")


def write_files(folder: Path, splits: Mapping[str, Sequence[Row]]) -> None:
    """Write one JSONL file for each split; a file is whole or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        unfinished = folder / f"{name}.jsonl.{os.getpid()}.part"  # of this run alone
        unfinished.write_bytes(lines.encode("utf-8"))
        unfinished.replace(folder / f"{name}.jsonl")


if __name__ == "__main__":
    sys.exit(main())
