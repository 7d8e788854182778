"""The local hub on odd machines and in odd places, and writes whose last steps fail."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import softhub.files
from softhub.adapter.layout import write_atomically
from softhub.config import expand_user, full_path, softhub_home
from softhub.errors import ConfigError, HubError, InvalidAdapter
from softhub.hub import Hub
from tests.hub.adapters import adapter_files, write
from tests.hub.conftest import MakeAdapter

REPO = "me/sentiment"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "hub"


WRITES: dict[str, Callable[[Hub, Path], object]] = {
    "push": lambda hub, new: hub.push(new, REPO, tags=["v2", "v3"]),
    "push to a new repository": lambda hub, new: hub.push(new, "me/new", tags=["v1"]),
    "push of the same": lambda hub, new: hub.push(hub.pull(REPO), REPO, tags=["v2", "v3"]),
    "tag": lambda hub, new: hub.tag(REPO, "v2"),
    "untag": lambda hub, new: hub.untag(REPO, "v1"),
    "deprecate": lambda hub, new: hub.deprecate(REPO, reason="old"),
    "delete": lambda hub, new: hub.delete(REPO),
}


def seen(hub: Hub) -> list[object]:
    return [(i.repo_id, i.revision == "", i.tags, i.deprecated, i.total_bytes) for i in hub.list()]


@pytest.mark.parametrize("fault", ["notes", "flush of refs", "trash"])
@pytest.mark.parametrize("name", WRITES)
def test_nothing_after_the_change_itself_reports_a_failure(
    name: str,
    fault: str,
    tmp_path: Path,
    make_adapter: MakeAdapter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, new = make_adapter(1), make_adapter(2)
    hubs = [Hub(f"local:{tmp_path / place}") for place in ("sound", "faulty")]
    for hub in hubs:
        hub.push(first, REPO, tags=["v1"])
    WRITES[name](hubs[0], new)
    hidden = tmp_path / "faulty" / ".softhub"
    if fault == "notes":
        (hidden / "changes").unlink()
        (hidden / "changes").mkdir()
    elif fault == "trash":
        monkeypatch.setattr(
            "softhub.hub.local.store.Store.sweep_trash", lambda store: None, raising=True
        )
    else:
        really = softhub.files.sync_directory

        def sync(folder: Path) -> None:
            if folder.name in ("refs", "faulty"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            really(folder)

        for module in ("softhub.files", "softhub.hub.local.repository"):
            monkeypatch.setattr(f"{module}.sync_directory", sync)
    WRITES[name](hubs[1], new)
    assert seen(hubs[1]) == seen(hubs[0])
    monkeypatch.undo()
    assert [info.repo_id for info in hubs[1].list()] == [info.repo_id for info in hubs[0].list()]


def test_tags_of_a_push_that_was_stopped_behind_its_branch_are_seen_and_then_written(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_hub.push(make_adapter(1), REPO, tags=["v1"])

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("softhub.hub.local.repository.Repository._complete", fails)
    commit = local_hub.push(make_adapter(2), REPO, tags=["v2", "v3"]).revision
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    refs = root / "models--me--sentiment" / "refs"
    assert not (refs / "v2").exists()
    for _ in range(2):
        assert local_hub.info(REPO, revision="v2").revision == commit
        assert local_hub.list()[0].tags == ("v1", "v2", "v3")
        assert local_hub.log(REPO)[0].tags == ("v2", "v3")
        local_hub.tag(REPO, "v4")
        local_hub.untag(REPO, "v4")
    assert (refs / "v2").read_text() == (refs / "v3").read_text() == commit


def test_tags_for_content_that_is_there_are_all_set_or_none(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_adapter(1)
    local_hub.push(folder, REPO)
    really = softhub.files.replace_file

    def replace(path: Path, data: bytes, *, staging: Path | None = None) -> None:
        if path.name == "v3":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(path, data, staging=staging)

    monkeypatch.setattr("softhub.hub.local.repository.replace_file", replace)
    with pytest.raises(HubError, match="No space left"):
        local_hub.push(folder, REPO, tags=["v1", "v2", "v3"])
    assert local_hub.info(REPO).tags == ()


# Names that are one file on macOS and Windows.


@pytest.mark.parametrize("name", ["me/Sentiment", "ME/sentiment", "Me/SENTIMENT"])
def test_a_repository_whose_name_differs_in_case_only_is_refused(
    local_hub: Hub, make_adapter: MakeAdapter, name: str
) -> None:
    local_hub.push(make_adapter(1), REPO)
    with pytest.raises(HubError, match=f"already has {REPO}"):
        local_hub.push(make_adapter(2), name)
    assert [info.repo_id for info in local_hub.list()] == [REPO]
    local_hub.push(make_adapter(2), "ME/other")
    local_hub.push(make_adapter(2), REPO)


def test_tags_and_branches_that_differ_in_case_only_are_refused(
    local_hub: Hub, make_adapter: MakeAdapter
) -> None:
    local_hub.push(make_adapter(1), REPO, tags=["v1-Alpha"])
    with pytest.raises(HubError, match="only in case"):
        local_hub.tag(REPO, "V1-alpha")
    with pytest.raises(HubError, match="only in case"):
        local_hub.push(make_adapter(2), REPO, revision="Main")
    with pytest.raises(HubError, match="only in case"):
        local_hub.push(make_adapter(2), REPO, tags=["v1-ALPHA"])
    with pytest.raises(HubError, match="only in case"):
        local_hub.push(make_adapter(2), REPO, tags=["x", "X"])
    with pytest.raises(HubError, match="only in case"):
        local_hub.push(make_adapter(2), REPO, revision="dev", tags=["Dev"])
    assert local_hub.info(REPO).tags == ("v1-Alpha",)
    assert len(local_hub.log(REPO)) == 1


def _git(folder: Path, *arguments: str) -> None:
    options = ("-c", "core.autocrlf=true", "-c", "user.name=x", "-c", "user.email=x@example.org")
    command = ["git", "-C", str(folder), *options, *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_a_hub_in_git_survives_its_line_ends(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    local_hub.push(make_adapter(1, body="# a\nb\nc\n"), REPO, tags=["v1"])
    _git(root, "init", "-q")
    _git(root, "add", "-A")
    _git(root, "commit", "-q", "-m", "hub")
    _git(tmp_path, "clone", "-q", str(root), "clone")
    clone = Hub(f"local:{tmp_path / 'clone'}")
    assert set(clone.verify(REPO).values()) == {None}
    assert clone.list() == local_hub.list()
    assert clone.push(make_adapter(2), REPO).parent == clone.info(REPO, revision="v1").revision


def test_git_attributes_of_ones_own_are_left_alone(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter
) -> None:
    root.mkdir()
    (root / ".gitattributes").write_text("* -text -diff\n")
    local_hub.push(make_adapter(1), REPO)
    assert (root / ".gitattributes").read_text() == "* -text -diff\n"


# The working folder.


@pytest.mark.parametrize("name", [".", "../here", "link"])
def test_the_working_folder_is_not_replaced(
    local_hub: Hub,
    make_adapter: MakeAdapter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    local_hub.push(make_adapter(1), REPO)
    here = write(tmp_path / "here", adapter_files(2))
    before = here.stat().st_ino
    monkeypatch.chdir(here)
    target = Path(name)
    if name == "link":
        target = tmp_path / "link"
        target.symlink_to(here)
    with pytest.raises(InvalidAdapter, match="working folder"):
        local_hub.pull(REPO, local_dir=target)
    with pytest.raises(InvalidAdapter, match="working folder"):
        write_atomically(target, adapter_files(1))
    assert here.stat().st_ino == before
    assert local_hub.pull(REPO, local_dir="inside") == here / "inside"


# Machines without a home, an account or a working folder.

EVERY_VERB = """
import json, os, pwd, sys
from softhub.cli import main
place, verbs = sys.argv[1], json.loads(sys.argv[2])
if place == "no working folder":
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")
else:
    def no_account(user):
        raise KeyError(user)
    pwd.getpwuid = no_account
for verb in verbs:
    sys.argv = ["softhub", *verb]
    try:
        main()
    except SystemExit as ended:
        print(ended.code, *verb, file=sys.stderr)
"""
VERBS = [
    ["list"],
    ["search", "x"],
    ["info", REPO],
    ["log", REPO],
    ["pull", REPO],
    ["verify", REPO],
    ["tag", REPO, "v9"],
    ["untag", REPO, "v9"],
    ["similar", REPO],
    ["deprecate", REPO, "--reason", "x"],
    ["delete", REPO, "--yes"],
    ["whoami"],
    ["push", "adapter", REPO],
    ["info", "./adapter"],
    ["info", "~nobody-at-all/adapter"],
    ["pull", REPO, "--to", "here"],
    ["list", "--hub", "local:~nobody-at-all/hub"],
    ["list", "--hub", "local:relative"],
    ["push", "adapter", REPO, "--hub", "local:relative"],
]


@pytest.mark.parametrize("place", ["no account", "no working folder"])
def test_no_verb_ends_in_a_traceback_for_a_machine_s_oddity(place: str, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    if place == "no working folder":
        environment["SOFTHUB_HOME"] = "relative"
    done = subprocess.run(
        [sys.executable, "-c", EVERY_VERB, place, json.dumps(VERBS)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for verb in VERBS:
        assert any(line.endswith(" ".join(verb)) for line in done.stderr.splitlines()), verb
    assert "SOFTHUB_HOME" in done.stderr or "working folder was deleted" in done.stderr


@pytest.mark.parametrize("name", ["~nobody-at-all", "~nobody-at-all/x", "~no such user/x"])
def test_an_unknown_home_is_a_clear_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="home folder"):
        expand_user(name)
    with pytest.raises(ConfigError, match="home folder"):
        Hub(f"local:{name}")
    monkeypatch.setenv("SOFTHUB_HOME", name)
    with pytest.raises(ConfigError, match="home folder"):
        softhub_home()
    with pytest.raises(ConfigError, match="home folder"):
        Hub()


def test_a_hub_with_a_full_path_needs_no_home(
    local_hub: Hub, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_hub.push(make_adapter(1), REPO)
    monkeypatch.setenv("SOFTHUB_HOME", "~nobody-at-all")
    assert [info.repo_id for info in local_hub.list()] == [REPO]
    assert local_hub.pull(REPO).is_dir()


def test_a_deleted_working_folder_is_a_clear_error(
    local_hub: Hub, make_adapter: MakeAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_hub.push(make_adapter(1), REPO)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="working folder was deleted"):
        full_path("x")
    with pytest.raises(ConfigError, match="working folder was deleted"):
        Hub("local:x")
    with pytest.raises(InvalidAdapter, match="no folder"):
        local_hub.push("adapter", REPO)
    with pytest.raises(HubError, match="copying"):
        local_hub.pull(REPO, local_dir="here")
    assert [info.repo_id for info in local_hub.list()] == [REPO]
    assert local_hub.pull(REPO, local_dir=tmp_path / "there").is_dir()


@pytest.mark.parametrize("verb", ["list", "search", "leaderboard"])
def test_a_hub_that_cannot_be_read_is_a_clear_error(
    verb: str, local_hub: Hub, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_hub.push(make_adapter(1), REPO)
    really = os.listdir

    def listdir(path: str | Path = ".") -> list[str]:
        if Path(path).name == "hub":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return really(path)

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, listdir)
    with pytest.raises(HubError, match=r"cannot read .*Permission denied"):
        getattr(local_hub, verb)(*["sentiment"] if verb == "leaderboard" else [])


def test_a_name_that_is_too_long_for_a_folder_is_a_clear_error() -> None:
    with pytest.raises(HubError, match=r"cannot read .*name too long") as raised:
        Hub("local:" + "x" * 5_000)
    assert len(str(raised.value)) < 500
