"""Running generated code: one program and its tests in a confined process of their own.

What confines it is in `softhub.evaluation.sandbox.confined_process`; what it does not protect
from, in `docs/sandbox.md`. Nothing here runs unless the caller asked for generated code to be run.
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
from typing import Any

from softhub.errors import ConfigError, DatasetError
from softhub.tasks.dataset import Example
from softhub.tasks.task import Task

_SCRIPT = Path(__file__).with_name("confined_process.py")
_VERDICT_BYTES = 2**16
_MOST_WORKERS = 4


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
        seconds: Wall time, after which it is killed.
        cpu_seconds: Processor time of all its threads.
        memory_bytes: Address space, Python's own included.
        file_bytes: Largest file that it may write.
        open_files: Files open at once.
    """

    seconds: float = 15.0
    cpu_seconds: int = 5
    memory_bytes: int = 2**30
    file_bytes: int = 2**24
    open_files: int = 64

    def to_record(self) -> dict[str, int]:
        """By the names of Python's `resource`, for the confined process."""
        return {
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_CORE": 0,
        }


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
        kind: `passed` (its tests ran to their end), `failed` (an exception: a test's, or its own),
            `exited` (it ended before its tests did), or `timeout`.
        detail: What was thrown, or which signal ended it.
    """

    kind: str
    detail: str = ""


DEFAULT_LIMITS = Limits()


def code_of(task: Task, example: Example, answer: str) -> str:
    """The program that an answer makes: the row's code that it goes on from, then the answer."""
    return str(example.row[task.code_column]) + answer if task.code_column else answer


def tests_of(task: Task, example: Example) -> str:
    """The code that tests the answers to a row.

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
        programs: For each its code, and the code that tests it: run behind it in the same
            namespace, raising whatever it likes where the program is wrong.
        limits: What each may use.

    Returns:
        How each ended, in order.

    Raises:
        ConfigError: This machine cannot confine them.
    """
    confinement()
    with ThreadPoolExecutor(min(_MOST_WORKERS, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda program: run_program(*program, limits=limits), programs))


def run_program(code: str, tests: str, *, limits: Limits = DEFAULT_LIMITS) -> Outcome:
    """Run one program with its tests; see `run_programs`."""
    kind, detail = _run({"code": code, "tests": tests}, limits)
    if kind == "unconfined":
        raise _refusal(detail)
    return Outcome(kind, detail)


@cache
def confinement() -> str:
    """What confines programs on this machine, in words.

    Raises:
        ConfigError: Nothing does.
    """
    if sys.platform != "linux":
        raise _refusal(sys.platform)
    kind, detail = _run({"code": None, "tests": ""}, DEFAULT_LIMITS)
    if kind != "confined":
        raise _refusal(detail)
    return detail


def _refusal(found: str) -> ConfigError:
    return ConfigError(
        "Generated code is run only where the kernel confines it: Linux with seccomp, on x86-64 or "
        f"arm64; found: {found}. Evaluate without run_code (--run_generated_code), or on such a "
        "machine."
    )


def _run(job: dict[str, Any], limits: Limits) -> tuple[str, str]:
    """Start a confined process in a folder of its own, and clean up behind it."""
    folder = tempfile.mkdtemp(prefix="softhub-sandbox-")
    try:
        return _run_in(Path(folder), job, limits)
    finally:
        with contextlib.suppress(RecursionError):  # folders in folders, thousands deep
            shutil.rmtree(folder, ignore_errors=True)


def _run_in(folder: Path, job: dict[str, Any], limits: Limits) -> tuple[str, str]:
    token = secrets.token_hex()
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as verdict:
        given.write(json.dumps({**job, "token": token, "limits": limits.to_record()}).encode())
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SCRIPT)],
            stdin=given,
            stdout=verdict,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"HOME": str(folder), "TMPDIR": str(folder)},
            start_new_session=True,
        )
        try:
            code = process.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            return "timeout", f"still running after {limits.seconds:g} s"
        finally:
            process.kill()  # it can have started no other
            process.wait()
        verdict.seek(0)
        return _read_verdict(verdict.read(_VERDICT_BYTES), token, code)


def _read_verdict(data: bytes, token: str, code: int) -> tuple[str, str]:
    """What the confined process said, if it knows the token; else what its end says."""
    try:
        said, kind, detail = json.loads(data)
    except (ValueError, TypeError, RecursionError):
        said, kind, detail = None, "", ""
    if said == token:
        return str(kind), str(detail)
    if code == -signal.SIGXCPU:
        return "timeout", "used up its processor time"
    if code < 0:
        return "exited", f"ended by {signal.Signals(-code).name}"
    return "exited", "left before its tests were done"
