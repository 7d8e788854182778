"""push, pull, list and info, on a real hub in a temporary folder."""

import json
from pathlib import Path

import pytest

from softhub.adapter.layout import FILES
from softhub.model.prompt import SoftPrompt
from tests.cli.conftest import MakeAdapter
from tests.command import Command
from tests.hub.adapters import adapter_files, write


def test_push_then_pull_gives_the_same_adapter(
    softhub: Command, adapter: Path, tmp_path: Path
) -> None:
    pushed = softhub("push", adapter, "me/sentiment", "--tag", "v1", "-m", "First")
    assert pushed.code == 0, pushed.err
    name, _, commit = pushed.out.strip().partition("@")
    assert (name, len(commit)) == ("me/sentiment", 40)

    folder = Path(softhub("pull", "me/sentiment").out.strip())
    copy = tmp_path / "copy"
    assert softhub("pull", "me/sentiment", "--revision", "v1", "--to", copy).out == f"{copy}\n"
    for pulled in (folder, copy):
        assert {path.name for path in pulled.iterdir()} == set(FILES)
        assert all((pulled / n).read_bytes() == (adapter / n).read_bytes() for n in FILES)


def test_pushing_the_same_again_makes_no_commit_and_says_so(
    softhub: Command, adapter: Path
) -> None:
    first = softhub("push", adapter, "me/sentiment")
    again = softhub("push", adapter, "me/sentiment", "--json")
    record = json.loads(again.out)
    assert f"me/sentiment@{record['revision']}\n" == first.out
    assert record["created"] is False
    assert "already has exactly this content" in again.err


def test_list_is_tab_separated_when_piped(softhub: Command, make_adapter: MakeAdapter) -> None:
    softhub("push", make_adapter(seed=0), "me/sentiment", "--tag", "v1")
    softhub("push", make_adapter(seed=1, task=None, metrics=()), "you/other")
    header, *rows = [line.split("\t") for line in softhub("list").out.splitlines()]
    found = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert found["me/sentiment"] == {
        "repository": "me/sentiment",
        "task": "sentiment",
        "base model": "example/tiny-llama",
        "score": "accuracy 0.930",
        "tokens": "5",
        "size": found["me/sentiment"]["size"],
        "tags": "v1",
        "note": "",
    }
    assert found["me/sentiment"]["size"].endswith(" kB")
    assert found["you/other"]["task"] == "unknown"
    assert softhub("ls").out == softhub("list").out


def test_list_as_json(softhub: Command, adapter: Path) -> None:
    softhub("push", adapter, "me/sentiment", "--tag", "v1")
    (record,) = json.loads(softhub("list", "--json").out)
    assert record["repo_id"] == "me/sentiment"
    assert record["score"] == ["accuracy", 0.93]
    assert record["tags"] == ["v1"]


def test_empty_hub_says_how_to_push(softhub: Command) -> None:
    done = softhub("list")
    assert (done.code, done.out) == (0, "")
    assert "softhub push" in done.err
    assert json.loads(softhub("list", "--json").out) == []


def test_a_hub_whose_folder_is_not_there_is_named(softhub: Command, tmp_path: Path) -> None:
    hub = f"local:{tmp_path / 'nope'}"
    done = softhub("list", "--hub", hub)
    assert (done.code, done.out) == (0, "")
    assert f"hub {hub} is empty (its folder {tmp_path / 'nope'} does not exist yet)" in done.err
    assert done.err.endswith(f"softhub push FOLDER NAMESPACE/NAME --hub {hub}\n")
    missing = softhub("info", "me/mood", "--hub", hub)
    assert missing.code == 1
    assert f"not on the hub at {tmp_path / 'nope'}, which does not exist" in missing.err
    (tmp_path / "nope").mkdir()
    assert f"`softhub list --hub {hub}` shows" in softhub("info", "me/mood", "--hub", hub).err
    assert f"softhub list --hub {hub}" in softhub("search", "mood", "--hub", hub).err


@pytest.mark.parametrize("verb", [("info",), ("predict", "text", "--base", "unused")])
def test_an_adapter_without_a_name_is_refused(softhub: Command, verb: tuple[str, ...]) -> None:
    done = softhub(verb[0], "", *verb[1:])
    assert (done.code, done.out) == (2, "")
    assert "the name of the adapter is empty" in done.err


def test_info_of_a_repository(softhub: Command, adapter: Path) -> None:
    softhub("push", adapter, "me/sentiment", "--tag", "v1", "-m", "First")
    shown = softhub("info", "me/sentiment", "--revision", "v1").out
    for fact in ("me/sentiment", "sentiment (classification)", "5 x 32", "First", "apache-2.0"):
        assert fact in shown
    reuse = "reuses 0 of 5 virtual tokens with blocks of 16, 0 with blocks of 32, 0 with blocks of"
    assert reuse in shown
    assert "test\taccuracy\tsoft prompt\t0.930 (0.900 to 0.960)\t300" in shown
    assert "test\taccuracy\tzero-shot\t0.880\t300" in shown
    record = json.loads(softhub("info", "me/sentiment", "--json").out)
    assert record["num_virtual_tokens"] == 5


def test_info_of_a_folder(softhub: Command, adapter: Path) -> None:
    shown = softhub("info", adapter)
    assert shown.code == 0, shown.err
    assert "sentiment (classification)" in shown.out
    record = json.loads(softhub("info", adapter, "--json").out)
    assert record["folder"] == str(adapter)
    assert record["total_bytes"] == sum((adapter / name).stat().st_size for name in FILES)
    assert "revision" not in record


def test_info_of_a_damaged_folder_is_refused(softhub: Command, adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    done = softhub("info", adapter)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")


def test_hub_option_and_variable_choose_the_hub(
    softhub: Command, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = f"local:{tmp_path / 'other'}"
    softhub("push", adapter, "me/sentiment", "--hub", other)
    assert json.loads(softhub("list", "--json").out) == []
    assert len(json.loads(softhub("list", "--json", "--hub", other).out)) == 1
    monkeypatch.setenv("SOFTHUB_HUB", other)
    assert len(json.loads(softhub("list", "--json").out)) == 1


@pytest.mark.parametrize("ref", ["./missing", "/missing/adapter", "a/b/c", "~/missing"])
def test_a_path_that_is_not_there_is_named(softhub: Command, ref: str) -> None:
    done = softhub("info", ref)
    assert done.code == 1
    assert f"There is no adapter folder at {ref!r}" in done.err


def test_a_folder_has_no_revisions(softhub: Command, adapter: Path) -> None:
    done = softhub("info", adapter, "--revision", "v1")
    assert done.code == 2
    assert "folders have no revisions" in " ".join(done.err.split())


def test_hostile_card_steers_no_terminal(softhub: Command, make_adapter: MakeAdapter) -> None:
    hostile = "evil\x1b]0;owned\x07\x1b[2J\u202etxt"
    folder = make_adapter()
    prompt = SoftPrompt.from_pretrained(folder)
    card = f'---\ntags: ["{hostile!r}"]\nlanguage: "\\e[2J\\u202een"\n---\n{folder.name}'
    prompt.save_pretrained(folder, card=card)
    softhub("push", folder, "me/sentiment", "-m", hostile)
    for arguments in (["list"], ["info", "me/sentiment"], ["info", "me/sentiment", "--json"]):
        shown = softhub(*arguments)
        assert shown.code == 0, shown.err
        assert not set(shown.out) & set("\x1b\x07\x9b\u202e")


def test_list_says_what_is_damaged(softhub: Command, adapter: Path, softhub_home: Path) -> None:
    softhub("push", adapter, "me/sentiment")
    (softhub_home / "hub" / "models--me--sentiment" / "refs" / "main").write_text("nonsense")
    header, row = [line.split("\t") for line in softhub("list").out.splitlines()]
    assert dict(zip(header, row, strict=True))["note"] == "damaged"


def test_a_file_is_no_hub(softhub: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = softhub("list", "--hub", f"local:{tmp_path / 'file'}")
    assert (done.code, done.out) == (1, "")
    assert "is a file" in done.err


@pytest.mark.parametrize("place", ["adapter", "me/sentiment"])
def test_an_interrupted_save_is_named_with_the_earlier_adapter(
    softhub: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    earlier = tmp_path / Path(place).parent / f".{Path(place).name}.0123456789ab.old"
    write(earlier, adapter_files(1))
    for verb in (["info"], ["similar"], ["push"]):
        done = softhub(*verb, place, *(["me/x"] if verb == ["push"] else []))
        assert done.code == 1
        assert str(earlier) in done.err
        assert "not on the hub" not in done.err
