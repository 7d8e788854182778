"""The script that fetches translations."""

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from itertools import combinations
from pathlib import Path

import pytest
from fetch import check_disjoint, check_integrity, have_files, runs, without_runs

from recipes.data import scratch_translations
from recipes.data.scratch_translations import (
    EXAMPLES,
    LANGUAGES,
    LARGEST_FAMILY,
    family,
    parallel_texts,
    split_by_family,
)

SCRIPT = Path(scratch_translations.__file__)


def texts_of(**english):
    """Texts by key in every language; the others are the English ones with a mark."""
    return {
        language: {
            f"page/{key}": text if language == "en" else f"{language}_{text}"
            for key, text in english.items()
        }
        for language in LANGUAGES
    }


def grown(families=80):
    """Rows of families of several sizes; each says something of its own."""
    return [
        {language: f"{language} {name} says its number {number}" for language in LANGUAGES}
        | {"group": f"page/family{name}"}
        for name in range(families)
        for number in range(60 if name == 3 else 1 + name % 13)
    ]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("faq/faq.whatIsScratch", "faq/faq"),
        ("interface/gui.howtos.spin.step1", "interface/howtos"),
        ("annual-report-2020/annualReport.2020.title", "annual-report"),
        ("annual-report-2019/annualReport.founders", "annual-report"),
        ("conference-index-2017/conference-2017.desc", "conference"),
        ("blocks/MOTION_TURN", "blocks/MOTION"),
        ("page/1.2", "page/"),
    ],
)
def test_a_family_is_a_page_and_the_first_part_of_the_key(key, name):
    assert family(key).startswith(name)


def test_texts_that_are_sound_in_all_languages_become_a_row():
    texts = texts_of(**{"a.one": "The cat is here.", "a.two": "The dog is there."})
    texts["it"]["page/a.two"] = ""
    (row,) = parallel_texts(texts)
    assert row == {
        "en": "The cat is here.",
        **{language: f"{language}_The cat is here." for language in LANGUAGES if language != "en"},
        "group": "page/a",
    }


@pytest.mark.parametrize(
    "text",
    [
        "Too short",
        "word " * 26,
        "Hello {name}, how are you?",
        "See <a>this page</a> for more",
        "Write to help@scratch.mit.edu for more",
        "Read more on www.example.org today",
        "An in\u200bvisible space is here",
    ],
)
def test_what_is_no_text_is_left_out(text):
    assert list(parallel_texts(texts_of(a=text))) == []


def test_what_was_said_before_or_not_translated_is_left_out():
    texts = texts_of(a="The cat is here.", b="the  CAT is here!", c="Scratch Cat Blocks")
    texts["de"]["page/c"] = "Scratch Cat Blocks"
    assert [row["en"] for row in parallel_texts(texts)] == ["The cat is here."]


def test_whole_families_are_dealt_and_large_ones_stay_in_train():
    rows = grown()
    splits = split_by_family(rows)
    groups = {name: {row["group"] for row in split} for name, split in splits.items()}
    assert all(not a & b for a, b in combinations(groups.values(), 2))
    assert sorted(map(str, rows)) == sorted(str(row) for split in splits.values() for row in split)
    assert "page/family3" in groups["train"]
    for name, wanted in EXAMPLES.items():
        assert wanted <= len(splits[name]) < wanted + LARGEST_FAMILY


def test_where_a_family_goes_does_not_depend_on_the_order():
    splits, backwards = split_by_family(grown()), split_by_family(grown()[::-1])
    assert {name: sorted(map(str, rows)) for name, rows in splits.items()} == {
        name: sorted(map(str, rows)) for name, rows in backwards.items()
    }


def test_five_words_in_a_row_in_any_language_are_a_leak():
    row = {language: f"{language} is a language of its own kind" for language in LANGUAGES}
    other = {language: f"words of {language} that are others" for language in LANGUAGES}
    almost = {**other, "es": "so IS A LANGUAGE of others"}
    shared = {**other, "es": "so is a language: of its own"}
    assert without_runs([almost, shared, other], [row], LANGUAGES, 5) == [almost, other]
    assert runs(["One, two."], 5) == {("one", "two")}


@pytest.mark.parametrize("what", ["group", "fr"])
def test_a_leak_between_splits_is_refused(what):
    rows = [
        {language: f"{language} {number}" for language in LANGUAGES} | {"group": f"{number}"}
        for number in range(2)
    ]
    rows[1][what] = rows[0][what]
    with pytest.raises(ValueError, match=f"two splits share a {what}"):
        check_disjoint({"train": rows[:1], "test": rows[1:]}, ["group", *LANGUAGES])


def package(folder):
    """A package of two pages."""
    files = {
        "www/scratch-website.faq-l10njson/en.json": {"faq.one": "The  cat\nis here."},
        "www/scratch-website.faq-l10njson/pt-br.json": {"faq.one": "O gato está aqui."},
        "www/scratch-website.faq-l10njson/ja.json": {"faq.one": "猫"},
        "editor/interface/en.json": {"gui.one": "Draw a cat."},
        "dist/interface/en.json": {"gui.two": "Not this one."},
    }
    path = folder / "package.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_the_languages_are_read_out_of_the_package(tmp_path):
    texts = scratch_translations.read_texts(package(tmp_path))
    assert texts["en"] == {"faq/faq.one": "The cat is here.", "interface/gui.one": "Draw a cat."}
    assert texts["pt"] == {"faq/faq.one": "O gato está aqui."}
    assert set(texts) == set(LANGUAGES) and not texts["fr"]


def test_another_package_is_refused(tmp_path):
    path = package(tmp_path)
    integrity = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    check_integrity(path, integrity)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ValueError, match=r"has sha512 .* expected"):
        check_integrity(path, integrity)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "npm, which downloads the data, was not found"),
        ("here", "could not download scratch-l10n@3.18.357: npm error code ENOTFOUND"),
    ],
)
def test_without_npm_or_network_it_says_so_and_leaves_nothing(path, words, tmp_path):
    npm = tmp_path / "here" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    npm.chmod(0o755)
    shutil.copy(SCRIPT.with_name("fetch.py"), tmp_path)
    script = shutil.copy(SCRIPT, tmp_path)
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{tmp_path / path}:/bin" if path else str(tmp_path)},
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "BSD-3-Clause" in done.stdout
    assert not (tmp_path / "files").exists()


@pytest.mark.skipif(
    not have_files(scratch_translations.FOLDER, scratch_translations.FILES),
    reason="python recipes/data/scratch_translations.py was not run",
)
def test_the_real_splits_share_no_family_and_no_text():
    splits = {
        name: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for name in ("train", "dev", "test")
        for path in [scratch_translations.FOLDER / f"{name}.jsonl"]
    }
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 945,
        "dev": 144,
        "test": 307,
    }
    check_disjoint(splits, ["group", *LANGUAGES])
    assert without_runs(splits["train"], splits["test"], LANGUAGES, 5) == splits["train"]
