"""The local hub on disk: readable without softhub, by copy, on read-only media, and checked."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from softhub.adapter.layout import CONFIG, MANIFEST, WEIGHTS
from softhub.errors import HubError, InvalidAdapter, RepositoryNotFound
from softhub.hub import Hub
from softhub.hub.records import commit_id
from tests.hub.adapters import adapter_files, write
from tests.hub.conftest import MakeAdapter

REPO = "me/sentiment"
PLAIN_PEFT = """
import sys, warnings
warnings.simplefilter("error", UserWarning)
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, *revisions = sys.argv[1:]
for revision in revisions:
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), "me/sentiment", revision=revision
    )
    print(model.get_prompt(batch_size=1)[0, 0, 0].item())
"""


@pytest.fixture
def root(local_hub: Hub, tmp_path: Path) -> Path:
    return tmp_path / "hub"


def files_under(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_plain_peft_reads_the_hub_by_tag_branch_and_commit(
    local_hub: Hub, root: Path, tmp_path: Path, tiny_base: Callable[[str], Path]
) -> None:
    first = local_hub.push(write(tmp_path / "1", adapter_files(1)), REPO, tags=["v1"])
    local_hub.push(write(tmp_path / "2", adapter_files(2)), REPO)
    environment = {**os.environ, "HF_HUB_CACHE": str(root), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", PLAIN_PEFT, str(tiny_base("llama"))]
    command += ["v1", "main", first.revision]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    old, new, by_hash = map(float, done.stdout.split())
    assert old == by_hash
    assert old == pytest.approx((31 % 101 - 50) / 50)
    assert new == pytest.approx((62 % 101 - 50) / 50)


def test_hugging_faces_tools_see_repository_commits_and_refs(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter
) -> None:
    from huggingface_hub import scan_cache_dir

    first = local_hub.push(make_adapter(1), REPO, tags=["v1"])
    second = local_hub.push(make_adapter(2), REPO)
    third = local_hub.push(make_adapter(3), REPO)
    (repo,) = scan_cache_dir(root).repos
    assert repo.repo_id == REPO
    refs = {revision.commit_hash: set(revision.refs) for revision in repo.revisions}
    assert refs == {
        commit.revision: {f"history/{commit.revision}", *extra}
        for commit, extra in ((first, ["v1"]), (second, []), (third, ["main"]))
    }


def test_history_survives_hugging_faces_prune(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter
) -> None:
    commits = [local_hub.push(make_adapter(seed), REPO).revision for seed in range(3)]
    command = [Path(sys.executable).with_name("hf"), "cache", "prune", "--yes"]
    environment = {**os.environ, "HF_HUB_CACHE": str(root)}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    assert set(local_hub.verify(REPO)) == set(commits)
    assert set(local_hub.verify(REPO).values()) == {None}


def test_a_commits_name_is_the_hash_of_its_record(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter
) -> None:
    commit = local_hub.push(make_adapter(1), REPO)
    folder = root / "models--me--sentiment"
    record = (folder / "commits" / f"{commit.revision}.json").read_bytes()
    assert commit_id(record) == commit.revision
    assert (
        record
        == json.dumps(
            json.loads(record), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()
    )
    assert (folder / "refs" / "main").read_text() == commit.revision


def test_only_plain_files_and_folders(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter
) -> None:
    commit = local_hub.push(make_adapter(1), REPO, tags=["v1"])
    paths = list(root.rglob("*"))
    assert not [path for path in paths if path.is_symlink()]
    assert not [path for path in paths if path.is_file() and path.stat().st_nlink > 1]
    weights = root / "models--me--sentiment" / "snapshots" / commit.revision / WEIGHTS
    assert weights.stat().st_mode & 0o777 == 0o644


def test_a_copied_hub_works(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    commit = local_hub.push(make_adapter(1), REPO, tags=["v1"])
    archive = shutil.make_archive(str(tmp_path / "hub"), "zip", root)
    shutil.unpack_archive(archive, tmp_path / "copy")
    copy = Hub(f"local:{tmp_path / 'copy'}")
    assert [info.repo_id for info in copy.list()] == [REPO]
    assert copy.pull(REPO, revision="v1").is_relative_to(tmp_path / "copy")
    assert copy.push(make_adapter(2), REPO).parent == commit.revision


READ_ONLY = """
import filelock, numpy, os, sqlite3, sys, yaml
from softhub.errors import HubError
from softhub.hub import Hub
hub = Hub(sys.argv[1])
if os.getuid() == 0:  # whom rights do not stop; another user may not read Python's files: so late
    os.setgid(65534)
    os.setuid(65534)
assert hub.pull("me/sentiment", revision="v1").is_dir()
assert [info.repo_id for info in hub.list()] == ["me/sentiment"]
assert [info.repo_id for info in hub.search("sentiment")] == ["me/sentiment"]
assert len(hub.log("me/sentiment")) == 1
assert set(hub.verify("me/sentiment").values()) == {None}
try:
    hub.tag("me/sentiment", "v2")
except HubError as error:
    print(error)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter, as pytest's own are not; removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="softhub-read-only-"))
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def test_read_only_media(open_folder: Path, make_adapter: MakeAdapter) -> None:
    root = open_folder / "hub"
    Hub(f"local:{root}").push(make_adapter(1), REPO, tags=["v1"])
    before = files_under(root)
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, f"local:{root}"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "SOFTHUB_HOME": "/nonexistent/softhub"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "tagging me/sentiment failed" in done.stdout
    assert files_under(root) == before


@pytest.mark.parametrize("inside", ["", "deeper/hub"])
def test_hugging_faces_cache_is_refused_as_a_hub(
    inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(HubError, match="download cache"):
        Hub(f"local:{tmp_path / 'cache' / inside}")
    assert Hub(f"local:{tmp_path / 'cache-of-mine'}").list() == []


def test_the_default_hub_lies_in_softhubs_home(
    softhub_home: Path, make_adapter: MakeAdapter
) -> None:
    commit = Hub().push(make_adapter(1), REPO)
    assert Hub().pull(REPO) == (
        softhub_home / "hub" / "models--me--sentiment" / "snapshots" / commit.revision
    )


@pytest.mark.parametrize(
    "uri", ["remote", "local:", "http://x", "hf+ftp://x", "hf+http://example.org"]
)
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(HubError):
        Hub(uri)


def test_an_altered_file_is_found(local_hub: Hub, root: Path, make_adapter: MakeAdapter) -> None:
    commit = local_hub.push(make_adapter(1), REPO)
    path = root / "models--me--sentiment" / "snapshots" / commit.revision / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InvalidAdapter, match="altered"):
        local_hub.pull(REPO)
    verdict = local_hub.verify(REPO)[commit.revision]
    assert verdict and "altered" in verdict


def test_a_missing_file_is_found(local_hub: Hub, root: Path, make_adapter: MakeAdapter) -> None:
    commit = local_hub.push(make_adapter(1), REPO)
    (root / "models--me--sentiment" / "snapshots" / commit.revision / CONFIG).unlink()
    with pytest.raises(InvalidAdapter, match="missing"):
        local_hub.pull(REPO)
    (info,) = local_hub.list()
    assert info.unchecked and "missing" in info.unchecked


def test_a_planted_file_is_found(local_hub: Hub, root: Path, make_adapter: MakeAdapter) -> None:
    commit = local_hub.push(make_adapter(1), REPO)
    snapshot = root / "models--me--sentiment" / "snapshots" / commit.revision
    (snapshot / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(InvalidAdapter, match=r"adapter_model\.bin"):
        local_hub.pull(REPO)
    (snapshot / "adapter_model.bin").unlink()
    (snapshot / ".DS_Store").write_bytes(b"a file browser was here")
    assert local_hub.pull(REPO) == snapshot


DAMAGES: dict[str, Callable[[Path], None]] = {
    "altered": lambda snapshot: (snapshot / CONFIG).write_bytes(b"{}"),
    "altered manifest": lambda snapshot: (snapshot / MANIFEST).write_bytes(b"{}"),
    "missing file": lambda snapshot: (snapshot / WEIGHTS).unlink(),
    "missing snapshot": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_push_of_the_same_content_repairs_the_snapshot(
    damage: str, local_hub: Hub, root: Path, make_adapter: MakeAdapter
) -> None:
    source = make_adapter(1)
    commit = local_hub.push(source, REPO)
    snapshot = root / "models--me--sentiment" / "snapshots" / commit.revision
    before = {path: data for path, data in files_under(root).items() if ".softhub" not in path}
    DAMAGES[damage](snapshot)
    again = local_hub.push(source, REPO, tags=["v1"])
    assert (again.revision, again.created, again.tags) == (commit.revision, False, ("v1",))
    assert local_hub.pull(REPO) == snapshot
    (info,) = local_hub.list()
    assert info.task == "sentiment"
    assert {path: files_under(root)[path] for path in before} == before
    assert not list((root / ".softhub" / "staging").rglob("*.*"))


def test_a_folder_in_place_of_a_file_is_named(local_hub: Hub, make_adapter: MakeAdapter) -> None:
    adapter = make_adapter(1)
    local_hub.push(adapter, REPO)
    card = local_hub.pull(REPO) / CONFIG
    card.unlink()
    card.mkdir()
    with pytest.raises(InvalidAdapter, match=r"config\.json is a folder; expected a file. Remove"):
        local_hub.push(adapter, REPO)
    card.rmdir()
    assert local_hub.push(adapter, REPO).created is False
    assert card.is_file()


def test_a_repair_deletes_nothing_that_was_not_pushed(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter
) -> None:
    source = make_adapter(1)
    commit = local_hub.push(source, REPO)
    snapshot = root / "models--me--sentiment" / "snapshots" / commit.revision
    (snapshot / CONFIG).write_bytes(b"{}")
    (snapshot / "notes.txt").write_text("mine")
    with pytest.raises(InvalidAdapter, match=r"notes\.txt"):
        local_hub.push(source, REPO)
    assert (snapshot / "notes.txt").read_text() == "mine"


def test_an_altered_record_is_found(local_hub: Hub, root: Path, make_adapter: MakeAdapter) -> None:
    commit = local_hub.push(make_adapter(1), REPO, message="mine")
    path = root / "models--me--sentiment" / "commits" / f"{commit.revision}.json"
    path.write_bytes(path.read_bytes().replace(b"mine", b"your"))
    with pytest.raises(InvalidAdapter, match="altered"):
        local_hub.pull(REPO)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"../../x", b"0" * 5_000])
def test_a_damaged_ref_is_found(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter, content: bytes
) -> None:
    local_hub.push(make_adapter(1), REPO)
    (root / "models--me--sentiment" / "refs" / "main").write_bytes(content)
    with pytest.raises(InvalidAdapter):
        local_hub.pull(REPO)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.timeout(30)
@pytest.mark.parametrize("place", ["refs/main", "commits/{}.json", f"snapshots/{{}}/{WEIGHTS}"])
def test_a_pipe_in_the_hub_holds_nobody_up(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter, place: str
) -> None:
    commit = local_hub.push(make_adapter(1), REPO).revision
    path = root / "models--me--sentiment" / place.format(commit)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InvalidAdapter, match="not a regular file"):
        local_hub.pull(REPO)
    assert len(local_hub.list()) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.timeout(30)
def test_a_pipe_for_the_indexs_notes_holds_nobody_up(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter
) -> None:
    commit = local_hub.push(make_adapter(1), REPO).revision
    (root / ".softhub" / "changes").unlink()
    os.mkfifo(root / ".softhub" / "changes")
    with pytest.raises(HubError, match="changes"):
        local_hub.push(make_adapter(2), REPO)
    assert [info.repo_id for info in local_hub.list()] == [REPO]
    assert local_hub.info(REPO).revision == commit  # refused before anything was written


def test_strange_folders_in_the_root_are_passed_over(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter
) -> None:
    local_hub.push(make_adapter(1), REPO)
    for name in ("models--", "models--a", "models--a--b--c", "datasets--a--b", "models--..--x"):
        (root / name).mkdir()
    (root / "models--me--empty").mkdir()
    (root / "models--me--file").write_text("")
    assert [info.repo_id for info in local_hub.list()] == [REPO]
    with pytest.raises(RepositoryNotFound):
        local_hub.pull("me/empty")


def test_local_paths_are_warned_of(local_hub: Hub, make_adapter: MakeAdapter) -> None:
    with pytest.warns(UserWarning, match="/home/someone/data"):
        local_hub.push(make_adapter(1, body="trained on /home/someone/data/x.csv\n"), REPO)
