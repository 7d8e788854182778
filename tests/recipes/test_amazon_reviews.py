"""The script that fetches the customer reviews."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import fetch
import pytest
from fetch import check_disjoint, without_repeats

from recipes.data import amazon_reviews
from recipes.data.amazon_reviews import Sentence, parse, split_by_review
from softhub.tasks import Task

SCRIPT = Path(amazon_reviews.__file__)
SENTIMENT = SCRIPT.parents[1] / "tasks" / "sentiment.yaml"
SNIPPETS = "1_1\t-0.9\t no picture .\r\n1_2\t2.35\tworks like a charm\r\n12_1\t-3\tbroke in a week"
SENTENCES = [
    Sentence(str(review), 2.0 - 4 * (number % 2), f"sentence {number} of review {review}").row
    for review in range(300)
    for number in range(1 + review % 9)
]


def test_lines_become_sentences() -> None:
    assert parse(SNIPPETS) == [
        Sentence("1", -0.9, "no picture ."),
        Sentence("1", 2.35, "works like a charm"),
        Sentence("12", -3.0, "broke in a week"),
    ]
    assert [item.row["label"] for item in parse(SNIPPETS)] == ["negative", "positive", "negative"]


@pytest.mark.parametrize("line", ["1_3\t0.5", "1_3\thigh\tgreat", "1_3\t1\tgreat\tmore", ""])
def test_another_format_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(ValueError, match="line 3: found"):
        parse(f"1_1\t1\ta\r\n1_2\t1\tb\r\n{line}\r\n1_4\t1\tc")


def test_a_sentence_said_before_is_left_out() -> None:
    said = [{"text": text} for text in ("Go for it!", "go  for it .", "it")]
    assert without_repeats(said) == [said[0], said[2]]


def test_no_review_is_split_and_nothing_is_lost() -> None:
    splits = split_by_review(SENTENCES)
    homes = Counter(
        review for split in splits.values() for review in {row["review"] for row in split}
    )
    assert set(homes.values()) == {1}
    assert len(SENTENCES) == sum(map(len, splits.values()))
    assert all(item in split for split in splits.values() for item in split)
    assert 650 <= len(splits["train"]) < 660
    assert 350 <= len(splits["dev"]) < 360


def test_where_a_review_goes_does_not_depend_on_the_order() -> None:
    splits = split_by_review(SENTENCES)
    backwards = split_by_review(SENTENCES[::-1])
    assert {name: split[::-1] for name, split in backwards.items()} == splits


@pytest.mark.parametrize(
    ("other", "shared"),
    [(Sentence("1", 1, "new"), "review"), (Sentence("2", 1, "same"), "text")],
)
def test_a_leak_between_splits_is_refused(other: Sentence, shared: str) -> None:
    splits = {"train": [Sentence("1", 1, "same").row], "test": [other.row]}
    with pytest.raises(ValueError, match=f"share a {shared}"):
        check_disjoint(splits, ["review", "text"])


def _sdist(folder: Path, data: bytes, *, link: bool = False) -> Path:
    """A tar in a tar, laid out as the package's."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        member = tarfile.TarInfo(amazon_reviews.SNIPPETS)
        if link:
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
        else:
            member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    path = folder / "package.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(amazon_reviews.ARCHIVE)
        member.size = len(inner.getvalue())
        archive.addfile(member, io.BytesIO(inner.getvalue()))
    return path


def test_the_sentences_are_read_out_of_the_archive_in_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = SNIPPETS.encode()
    monkeypatch.setattr(amazon_reviews, "SNIPPETS_SHA256", hashlib.sha256(data).hexdigest())
    assert amazon_reviews.read_snippets(_sdist(tmp_path, data)) == data


def test_other_sentences_than_expected_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has sha256 .* expected 11a9807a"):
        amazon_reviews.read_snippets(_sdist(tmp_path, SNIPPETS.encode()))


def test_a_link_in_the_archive_is_not_followed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a regular file"):
        amazon_reviews.read_snippets(_sdist(tmp_path, b"", link=True))


def test_a_member_larger_than_the_cap_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdist = _sdist(tmp_path, b"x" * 100_000)
    monkeypatch.setattr(fetch, "MAX_BYTES", 10_000)
    with pytest.raises(ValueError, match="at most 10000 bytes"):
        amazon_reviews.read_snippets(sdist)


def test_another_package_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz"):
        pass
    with pytest.raises(ValueError, match="it is another package"):
        amazon_reviews.read_snippets(tmp_path / "other.tar.gz")


def _run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of the script, whose files then lie in `folder`."""
    shutil.copy(SCRIPT.with_name("fetch.py"), folder)
    script = shutil.copy(SCRIPT, folder)
    return subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_without_a_package_index_it_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    nothing = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    done = _run(tmp_path, **nothing)
    assert done.returncode == 1
    assert "could not download vaderSentiment==3.3.2" in done.stderr
    assert "Check the network connection" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "files").exists()


def test_the_task_of_the_reviews_is_sound_and_knows_the_script() -> None:
    task = Task.from_file(SENTIMENT)
    assert task.dataset is not None
    assert task.dataset.prepare == "python recipes/data/amazon_reviews.py"
    assert {f"{split}.jsonl" for split in task.dataset.data_files} == set(amazon_reviews.FILES)
    for split, path in task.dataset.data_files.items():
        assert Path(path) == amazon_reviews.FOLDER / f"{split}.jsonl"
    assert task.template in task.hard_templates


@pytest.mark.e2e
def test_the_real_reviews(tmp_path: Path) -> None:
    first = _run(tmp_path)
    assert first.returncode == 0, first.stderr
    assert "Hutto" in first.stdout and "MIT" in first.stdout
    assert "train.jsonl: 658 rows" in first.stdout
    folder = tmp_path / "files" / "amazon_reviews"
    assert fetch.have_files(folder, amazon_reviews.FILES)
    rows = {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "dev", "test")
    }
    assert {name: len(split) for name, split in rows.items()} == {
        "train": 658,
        "dev": 352,
        "test": 1429,
    }
    for split in rows.values():
        positive = sum(row["label"] == "positive" for row in split) / len(split)
        assert 0.6 < positive < 0.63
    assert "Nothing to do" in _run(tmp_path).stdout
    (folder / "dev.jsonl").write_text("")
    assert not fetch.have_files(folder, amazon_reviews.FILES)
