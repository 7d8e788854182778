"""A push that is stopped anywhere leaves the hub as it was, or as it was to become."""

import errno
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import softhub.hub.local.repository
from softhub.adapter.layout import find_interrupted_save
from softhub.adapter.validation import check_folder
from softhub.errors import HubError, InvalidAdapter
from softhub.hub import Hub
from tests.hub.adapters import adapter_files, write
from tests.hub.conftest import MakeAdapter

REPO = "me/sentiment"
LEAST_STEPS = 40  # a push makes more; an error in its clean-up may pass unseen
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate"}

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="watches forked children by way of /proc"
)


class Steps:
    """Counts the file-system calls that change something, and acts on one of them."""

    def __init__(self, root: Path, act: Callable[[], None], at: int) -> None:
        self.root, self.act, self.at, self.count = str(root), act, at, 0
        self.calls: list[tuple[str, str]] = []

    def watch(self) -> None:
        """Watch this process from now on; only for forked children, for it cannot be undone."""
        sys.addaudithook(self._hear)
        really = os.fsync

        def fsync(descriptor: int) -> None:
            self._step("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink()))
            really(descriptor)

        os.fsync = fsync

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[2] & WRITES:
            self._step("open", str(arguments[0]))
        elif event in CHANGES:
            self._step(event, " -> ".join(str(a) for a in arguments[:2]))

    def _step(self, event: str, path: str) -> None:
        if self.root not in path:
            return
        self.count += 1
        self.calls.append((event, path))
        if self.count == self.at:
            self.act()


def in_child(work: Callable[[], int]) -> int:
    """Run `work` in a forked child; return what it returned, or minus the signal."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def state(hub: Hub) -> list[object]:
    """All that a reader can see of the hub."""
    return [
        (info, hub.log(info.repo_id), sorted(p.name for p in hub.pull(info.repo_id).iterdir()))
        for info in hub.list()
    ]


def leftovers(root: Path) -> list[Path]:
    hidden = root / ".softhub"
    return [p for name in ("staging", "trash") for p in (hidden / name).glob("*/*")]


def push(root: Path, folder: Path, tags: list[str]) -> int:
    try:
        Hub(f"local:{root}").push(folder, REPO, message="second", tags=tags)
    except HubError:
        return 1
    return 0


@pytest.mark.parametrize(
    "stride", [4, pytest.param(1, marks=pytest.mark.slow)], ids=["every 4th", "every"]
)
@pytest.mark.parametrize("act", [kill, fill_disk])
@pytest.mark.parametrize("first", [True, False], ids=["new repository", "second commit"])
def test_stopped_at_every_step(
    act: Callable[[], None], first: bool, stride: int, tmp_path: Path, make_adapter: MakeAdapter
) -> None:
    one, two, three = make_adapter(1), make_adapter(2), make_adapter(3)
    outcomes = set()
    for step in range(1, 500, stride):
        root = tmp_path / f"hub-{step}"
        hub = Hub(f"local:{root}")
        if not first:
            hub.push(one, REPO, tags=["v1"])
        before = state(hub)

        def work(root: Path = root, step: int = step) -> int:
            Steps(root, act, step).watch()
            return push(root, two, ["v2"])

        code = in_child(work)
        assert code in (0, 1, -signal.SIGKILL)
        outcomes.add(_outcome(hub, before))
        follow_up(hub, root, three)
        if step > LEAST_STEPS and code == 0:
            break
    assert step > LEAST_STEPS
    assert outcomes == {"before", "after"}


def test_a_repair_that_is_killed_at_any_step_is_finished_by_the_next(
    tmp_path: Path, make_adapter: MakeAdapter
) -> None:
    source = make_adapter(1)
    for step in range(1, 500):
        root = tmp_path / f"hub-{step}"
        hub = Hub(f"local:{root}")
        hub.push(source, REPO)
        folder = hub.pull(REPO)
        for path in folder.iterdir():
            path.write_bytes(b"altered")

        def work(root: Path = root, step: int = step) -> int:
            Steps(root, kill, step).watch()
            return push(root, source, ["v2"])

        code = in_child(work)
        hub.push(source, REPO, tags=["v2"])
        assert hub.pull(REPO, revision="v2") == folder
        assert leftovers(root) == []
        if code == 0:
            break
    assert step > 8


def _outcome(hub: Hub, before: list[object]) -> str:
    after = state(hub)
    if after == before:
        tags = hub.info(REPO).tags if after else ()
        assert "v2" not in tags
        return "before"
    info = hub.info(REPO)
    assert info.message == "second"
    assert "v2" in info.tags
    assert hub.info(REPO, revision="v2").revision == info.revision
    return "after"


def follow_up(hub: Hub, root: Path, folder: Path) -> None:
    """The next push finds a sound hub and leaves nothing behind."""
    parent = hub.info(REPO).revision if hub.list() else None
    assert hub.push(folder, REPO).parent == parent
    assert leftovers(root) == []
    assert set(hub.verify(REPO).values()) == {None}
    folders = root / "models--me--sentiment"
    known = {commit.revision for commit in hub.log(REPO)}
    for place in ("snapshots", "commits", "refs/history"):
        assert {path.name[:40] for path in (folders / place).iterdir()} == known


def test_everything_is_flushed_before_the_branch_moves(
    tmp_path: Path, make_adapter: MakeAdapter
) -> None:
    root, folder = tmp_path / "hub", make_adapter(1)
    report = tmp_path / "calls"

    def work() -> int:
        steps = Steps(root, fill_disk, -1)
        steps.watch()
        code = push(root, folder, ["v1"])
        report.write_text("\n".join(f"{event} {path}" for event, path in steps.calls))
        return code

    assert in_child(work) == 0
    calls = [line.split(" ", 1) for line in report.read_text().splitlines()]
    moved = next(i for i, (e, p) in enumerate(calls) if e == "os.rename" and p.endswith("/main"))
    flushed = [Path(path).name for event, path in calls[:moved] if event == "fsync"]
    for name in (*adapter_files(), "snapshot", "commit.json", "snapshots", "commits", "history"):
        assert name in flushed, name
    placed = next(i for i, (e, p) in enumerate(calls) if e == "os.rename" and "/snapshots/" in p)
    early = [Path(path).name for event, path in calls[:placed] if event == "fsync"]
    assert {*adapter_files(), "snapshot"} <= set(early)
    assert ("fsync", "refs") in [(event, Path(path).name) for event, path in calls[moved:]]


@pytest.mark.parametrize("replaced", [False, True], ids=["new folder", "replaced folder"])
def test_a_pull_into_a_folder_is_whole_wherever_it_is_killed(
    replaced: bool, tmp_path: Path, make_adapter: MakeAdapter
) -> None:
    hub = Hub(f"local:{tmp_path / 'hub'}")
    hub.push(make_adapter(1), REPO, tags=["v1"])
    hub.push(make_adapter(2), REPO)
    before = adapter_files(1) if replaced else {}
    for step in range(1, 100):
        target = tmp_path / f"pulled-{step}" / "adapter"
        if replaced:
            hub.pull(REPO, revision="v1", local_dir=target)

        def work(target: Path = target, step: int = step) -> int:
            Steps(target.parent, kill, step).watch()
            hub.pull(REPO, local_dir=target)
            return 0

        code = in_child(work)
        # Between two renames the earlier adapter has another name, which a reader is told.
        found = target if target.exists() else find_interrupted_save(target)
        present = {p.name: p.read_bytes() for p in found.iterdir()} if found else {}
        assert present in (before, adapter_files(2))
        if found not in (None, target):
            with pytest.raises(InvalidAdapter, match=re.escape(str(found))):
                check_folder(target)
        hub.pull(REPO, local_dir=target)
        if code == 0:
            break
    assert step > 10


def _push_many(root: str, adapters: str, worker: int, count: int, shared: bool) -> list[str]:
    hub = Hub(f"local:{root}")
    repo_id = REPO if shared else f"me/worker-{worker}"
    done = []
    for number in range(count):
        seed = worker * 1_000 + number
        folder = write(Path(adapters) / str(seed), adapter_files(seed))
        done.append(hub.push(folder, repo_id, message=str(seed)).revision)
        hub.pull(repo_id)
        assert repo_id in [info.repo_id for info in hub.list(task="sentiment")]
    return done


@pytest.mark.parametrize("shared", [True, False], ids=["one repository", "many"])
@pytest.mark.parametrize(
    "count", [3, pytest.param(50, marks=pytest.mark.slow)], ids=["3 each", "50 each"]
)
def test_sixteen_processes(tmp_path: Path, shared: bool, count: int) -> None:
    root, adapters = str(tmp_path / "hub"), str(tmp_path / "adapters")
    with ProcessPoolExecutor(16, mp_context=get_context("fork")) as pool:
        jobs = [pool.submit(_push_many, root, adapters, w, count, shared) for w in range(16)]
        pushed = [job.result(timeout=500) for job in jobs]
    hub = Hub(f"local:{root}")
    repos = (
        {REPO: list(chain(*pushed))}
        if shared
        else {f"me/worker-{worker}": pushed[worker] for worker in range(16)}
    )
    for repo_id, commits in repos.items():
        log = hub.log(repo_id, limit=10_000)
        assert sorted(entry.revision for entry in log) == sorted(commits)
        assert [entry.parent for entry in log] == [*[e.revision for e in log[1:]], None]
        assert set(hub.verify(repo_id).values()) == {None}
    assert sorted(info.repo_id for info in hub.list()) == sorted(repos)


@pytest.mark.parametrize("lost", ["locks", "."])
@pytest.mark.parametrize("at", ["history", "main"])
def test_two_pushes_at_once_damage_nothing_where_the_lock_is_removed(
    at: str,
    lost: str,
    local_hub: Hub,
    tmp_path: Path,
    make_adapter: MakeAdapter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody tidies up `.softhub` while the first push has placed its commit."""
    hidden = tmp_path / "hub" / ".softhub"
    local_hub.push(make_adapter(1), REPO)
    second, third = make_adapter(2), make_adapter(3)
    really = softhub.hub.local.repository.replace_file
    pushed = []

    def replace(path: Path, data: bytes, *, staging: Path) -> None:
        if at in str(path) and not pushed:
            pushed.append("")
            shutil.rmtree(hidden / lost)
            pushed[0] = local_hub.push(third, REPO, tags=["v3"]).revision
        really(path, data, staging=staging)

    monkeypatch.setattr("softhub.hub.local.repository.replace_file", replace)
    refused = False
    try:
        local_hub.push(second, REPO, tags=["v2"])
    except HubError as error:
        refused = True
        assert "push" in str(error)
    assert set(local_hub.verify(REPO).values()) == {None}
    assert local_hub.list()[0].unchecked is None
    assert local_hub.info(REPO, revision="v3").revision == pushed[0]
    if refused:
        assert local_hub.info(REPO).revision == pushed[0]
    assert local_hub.push(make_adapter(4), REPO).created
    assert leftovers(tmp_path / "hub") == []


def test_a_branch_whose_record_is_lost_can_begin_anew(
    local_hub: Hub, tmp_path: Path, make_adapter: MakeAdapter
) -> None:
    """As the message says, which names what to remove."""
    commit = local_hub.push(make_adapter(1), REPO).revision
    folder = tmp_path / "hub" / "models--me--sentiment"
    (folder / "commits" / f"{commit}.json").unlink()
    new = make_adapter(2)
    with pytest.raises(InvalidAdapter, match=f"remove each file .* from {folder / 'refs'}"):
        local_hub.push(new, REPO)
    (folder / "refs" / "main").unlink()
    assert local_hub.push(new, REPO).parent is None
    assert set(local_hub.verify(REPO).values()) == {None}
