"""Run one program and its tests: the script that `runner.py` starts inside the sandbox.

It imports nothing but the standard library. stdin carries the job; stdout takes the verdict, as
lines of JSON that begin with the job's secret token.
"""

import contextlib
import json
import os
import resource
import sys
import types


def main() -> None:
    """Read a job, drop privileges, run the job, and write the verdict."""
    job = json.load(sys.stdin.buffer)
    verdict = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    give_up(job["user"], job["limits"])
    # Bound before the program runs, which may replace whatever it can reach by name.
    write, leave, dumps, token = os.write, os._exit, json.dumps, job["token"]
    write(verdict, dumps([token, "started", ""]).encode())
    outcome = run(job["code"], job["tests"])
    write(verdict, f"\n{dumps([token, *outcome])}\n".encode())
    leave(0)  # immediately, so that neither threads nor exit handlers run any further


def give_up(user: int | None, limits: dict[str, int]) -> None:
    """Leave the root user and set resource limits, none of which can be undone.

    Args:
        user: The user ID to change to, or None to remain the user of the sandbox.
        limits: Values by the names of Python's `resource`.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123
        score.write("1000")  # when memory runs out, the kernel ends this process first
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    for name, value in limits.items():
        kind = getattr(resource, name)
        grace = 1 if kind == resource.RLIMIT_CPU else 0  # SIGXCPU first, SIGKILL a second later
        _, most = resource.getrlimit(kind)
        if most != resource.RLIM_INFINITY:
            value = min(value, most - grace)
        resource.setrlimit(kind, (value, value + grace))


def run(code: str, tests: str) -> tuple[str, str]:
    """Run a program and then its tests; return the kind of outcome and its detail.

    Each is compiled on its own, so that an unclosed quote in one cannot swallow the other.
    """
    module = types.ModuleType("program")
    sys.modules["program"] = module
    sys.argv = ["program"]
    try:
        for part, text in (("program", code), ("tests", tests)):
            exec(compile(text, f"<{part}>", "exec"), module.__dict__)
    except SystemExit:
        return "exited", "ended before its tests finished"
    except BaseException as error:  # whatever a program raises
        return "failed", _described(error)
    return "passed", ""


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except BaseException:  # a program may raise what cannot be printed
        return "an exception that cannot be printed"


if __name__ == "__main__":
    main()
