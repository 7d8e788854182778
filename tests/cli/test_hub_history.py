"""search, similar, log, diff, tag, verify, deprecate, delete, lock, whoami as commands."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from softhub.adapter.layout import WEIGHTS
from tests.command import Command
from tests.hub.adapters import adapter_files, write
from tests.prompts import MOOD, prefix, soft_prompt

if TYPE_CHECKING:
    from softhub.model.base import BaseModel

REPO = "me/sentiment"


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    scores = (0.7, 0.9)
    return [
        write(tmp_path / str(seed), adapter_files(seed, score=score))
        for seed, score in enumerate(scores)
    ]


@pytest.fixture
def pushed(softhub: Command, folders: list[Path]) -> Command:
    for folder, tag in zip(folders, ("v1", "v2"), strict=True):
        assert softhub("push", folder, REPO, "--tag", tag, "-m", f"message {tag}").code == 0
    return softhub


def lines(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def test_search_finds_and_filters(pushed: Command, folders: list[Path]) -> None:
    header, row = lines(pushed("search", "sentiment", "--min-score", "0.8").out)
    assert dict(zip(header, row, strict=True))["score"] == "accuracy 0.900"
    assert row[0] == REPO
    nothing = pushed("search", "--task", "triage")
    assert (nothing.code, nothing.out) == (0, "")
    assert "matches" in nothing.err
    (record,) = json.loads(pushed("search", "--base", "llama", "--json").out)
    assert record["repo_id"] == REPO
    wrong = pushed("search", "--sort", "beauty")
    assert wrong.code == 1
    assert "expected one of: date, name, score, size" in wrong.err


def test_search_by_prompt_type(
    softhub: Command, loaded: Callable[[str], "BaseModel"], tmp_path: Path
) -> None:
    for make in (soft_prompt, prefix):
        folder = make(loaded("llama"), 3, MOOD).save_pretrained(tmp_path / make.__name__)
        assert softhub("push", folder, f"me/{folder.name}").code == 0
    for prompt_type, name in [("prompt", "me/soft_prompt"), ("prefix", "me/prefix")]:
        found = lines(softhub("search", "--prompt-type", prompt_type).out)
        assert [row[0] for row in found[1:]] == [name]
    wrong = softhub("search", "--prompt-type", "lora")
    assert wrong.code == 1 and "expected one of: prefix, prompt" in wrong.err


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_what_a_search_finds_is_written_to_a_file(
    pushed: Command, tmp_path: Path, ending: str
) -> None:
    file = tmp_path / "new" / f"found.{ending}"
    done = pushed("search", "sentiment", "--output", file)
    assert (done.code, done.out) == (0, ""), done.err
    assert f"Wrote 1 row to {file}\n" in done.err
    if ending == "jsonl":
        (row,) = map(json.loads, file.read_text().splitlines())
    else:
        read = {"csv": pd.read_csv, "parquet": pd.read_parquet}[ending]
        (row,) = read(file).to_dict("records")
        row["score"] = json.loads(row["score"])
    (expected,) = json.loads(pushed("search", "sentiment", "--json").out)
    assert row["repo_id"] == expected["repo_id"] == REPO
    assert (row["score"], set(row)) == (expected["score"], set(expected))


def test_search_by_fingerprint(softhub: Command, tmp_path: Path) -> None:
    fingerprints = {
        "a": {"hash": "1", "later": "2", "settings": {"factor": [8.0], "window": [4]}},
        "b": {"hash": "2", "settings": {"factor": [8.0]}},
        "c": {"hash": "1", "settings": {"factor": [8.0]}},  # of an earlier version, which had less
        "d": {"hash": "1", "later": "2", "settings": {"factor": [1.0]}},
        "e": None,
    }
    for name, fingerprint in fingerprints.items():
        files = adapter_files(ord(name), fingerprint=fingerprint)
        softhub("push", write(tmp_path / name, files), f"me/{name}")
    found = lines(softhub("search", "--fingerprint-of", "me/a", "--sort", "name").out)
    assert [row[0] for row in found[1:]] == ["me/a", "me/c"]
    found = lines(softhub("search", "--fingerprint-of", tmp_path / "b").out)
    assert [row[0] for row in found[1:]] == ["me/b"]


def test_log_and_diff(pushed: Command) -> None:
    header, newest, oldest = lines(pushed("log", REPO).out)
    assert header == ["commit", "date", "author", "metrics", "tags", "message"]
    assert newest[3:] == ["accuracy 0.900 (test)", "v2", "message v2"]
    assert oldest[3:] == ["accuracy 0.700 (test)", "v1", "message v1"]
    shown = pushed("diff", REPO, "v1").out
    assert "metric\taccuracy (test)\t0.7\t0.9" in shown
    assert "vectors moved by" in shown
    record = json.loads(pushed("diff", REPO, "v1", "v2", "--json").out)
    assert record["metrics"] == {"accuracy (test)": [0.7, 0.9]}


def test_tag_and_untag(pushed: Command) -> None:
    tagged = pushed("tag", REPO, "best", "--revision", "v1").out.strip()
    assert tagged.startswith(f"{REPO}@")
    assert json.loads(pushed("info", REPO, "--json").out)["tags"] == ["best", "v1", "v2"]
    assert pushed("untag", REPO, "best").code == 0
    assert pushed("untag", REPO, "best").code == 1


def test_verify_fails_on_damage(pushed: Command) -> None:
    assert pushed("verify", REPO).code == 0
    folder = Path(pushed("pull", REPO).out.strip())
    (folder / WEIGHTS).write_bytes(b"damaged")
    done = pushed("verify", REPO)
    assert done.code == 1
    assert "was altered" in done.out


def test_deprecate_warns_on_pull(pushed: Command) -> None:
    assert pushed("deprecate", REPO, "--reason", "old", "--replacement", "me/new").code == 0
    done = pushed("pull", REPO)
    assert done.code == 0
    assert "warning: me/sentiment is deprecated: old; use me/new instead" in done.err


def test_delete_asks_first(
    pushed: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert pushed("rm", REPO).code == 1
    assert pushed("info", REPO).code == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    unanswered = pushed("rm", REPO)
    assert (unanswered.code, "add --yes" in unanswered.err) == (1, True)
    assert pushed("info", REPO).code == 0
    assert pushed("delete", REPO, "--yes").code == 0
    assert pushed("info", REPO).code == 1
    assert pushed("push", tmp_path / "0", REPO).code == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("Y\n"))
    assert pushed("rm", REPO).code == 0
    assert pushed("info", REPO).code == 1


def test_login_without_a_network_is_one_line(softhub: Command) -> None:
    """The tests are offline."""
    done = softhub("login")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: The login at huggingface.co failed: ")
    assert "HF_TOKEN" in done.err and done.err.count("\n") == 1


def test_lock_then_pull_what_is_locked(
    pushed: Command, folders: list[Path], tmp_path: Path
) -> None:
    lock, prompts = tmp_path / "softhub.lock", tmp_path / "prompts"
    assert pushed("lock", f"mood={REPO}@v1", "--file", lock).code == 0
    header, row = lines(pushed("pull", "--lock", lock, "--to", prompts).out)
    assert (header, row) == (["name", "folder"], ["mood", str(prompts / "mood")])
    weights = (folders[0] / WEIGHTS).read_bytes()
    assert (prompts / "mood" / WEIGHTS).read_bytes() == weights
    assert pushed("pull").code == 2
    assert pushed("pull", REPO, "--lock", lock).code == 2
    assert pushed("lock", "mood").code == 2


def test_a_name_is_locked_only_once(pushed: Command, tmp_path: Path) -> None:
    lock = tmp_path / "softhub.lock"
    done = pushed("lock", f"mood={REPO}", f"mood={REPO}@v1", "--file", lock)
    assert (done.code, done.out) == (2, "")
    assert "'mood' is given twice" in done.err
    assert not lock.exists()


def test_pull_expects_a_hash(pushed: Command) -> None:
    digest = json.loads(pushed("info", REPO, "--json").out)["weights_sha256"]
    assert pushed("pull", REPO, "--expect-sha256", digest).code == 0
    assert pushed("pull", REPO, "--expect-sha256", "0" * 64).code == 1


def test_similar_ranks_the_others(pushed: Command, tmp_path: Path) -> None:
    pushed("push", write(tmp_path / "other", adapter_files(7)), "me/other")
    header, row = lines(pushed("similar", REPO).out)
    assert header[:2] == ["similarity", "repository"]
    assert row[1] == "me/other"


def test_whoami_is_the_user(softhub: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTHUB_USER", "ada")
    assert softhub("whoami").out == "ada\n"


def test_offline_asks_no_remote_hub(softhub: Command) -> None:
    done = softhub("pull", REPO, "--hub", "hf+https://hub.invalid", "--offline")
    assert done.code == 1
    assert "was not pulled before" in done.err


def test_diff_prints_no_noise_of_floats(softhub: Command, tmp_path: Path) -> None:
    for seed, score in enumerate((0.8 + 0.03, 0.9)):
        softhub("push", write(tmp_path / str(seed), adapter_files(seed, score=score)), REPO)
    first = lines(softhub("log", REPO).out)[-1][0]
    assert "metric\taccuracy (test)\t0.83\t0.9" in softhub("diff", REPO, first).out


@pytest.mark.parametrize("option", ["--to", "--file"])
def test_a_place_that_cannot_be_written_is_told_in_one_line(
    option: str, pushed: Command, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    verb = ("pull", REPO) if option == "--to" else ("lock", f"mood={REPO}")
    for place in (tmp_path / "file" / "x", tmp_path / "file" / "x" / "y"):
        done = pushed(*verb, option, place)
        assert done.code == 1
        assert done.err.startswith("error: ") and str(place.parent) in done.err
        assert "Traceback" not in done.err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_is_no_lock_file(pushed: Command, tmp_path: Path) -> None:
    for arguments in (("pull", "--lock", tmp_path), ("lock", f"a={REPO}", "--file", tmp_path)):
        done = pushed(*arguments)
        assert (done.code, done.out) == (1, "")
        assert "not a lock file" in done.err


def test_a_repository_and_revision_in_one_are_taken_apart(pushed: Command) -> None:
    done = pushed("pull", f"{REPO}@v1")
    assert done.code == 1
    assert "--revision v1" in done.err


def test_endless_names_make_no_endless_message(softhub: Command) -> None:
    for arguments in (("pull", "x" * 9_000), ("pull", REPO, "--revision", "-" + "x" * 9_000)):
        assert len(softhub(*arguments).err) < 500


def test_a_deprecation_says_why_and_leads_elsewhere(pushed: Command) -> None:
    assert "reason" in pushed("deprecate", REPO, "--reason", " ").err
    assert "itself" in pushed("deprecate", REPO, "--reason", "Old.", "--replacement", REPO).err
    assert len(lines(pushed("log", REPO).out)) == 3


def test_a_push_onto_another_commit_than_expected_is_refused(
    pushed: Command, folders: list[Path]
) -> None:
    newest, oldest = (row[0] for row in lines(pushed("log", REPO).out)[1:])
    late = pushed("push", folders[0], REPO, "--parent-commit", oldest)
    assert late.code == 1
    assert newest in late.err
    assert pushed("push", folders[0], REPO, "--parent-commit", newest).code == 0
