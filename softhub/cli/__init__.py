"""The `softhub` command: verbs, output modes and exit codes; the work is done further down.

Exit codes: 0 done, 1 a known error (one line on stderr), 2 wrong usage, 130 interrupted.
"""

import io
import os
import sys
from collections.abc import Callable

INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an old console knows few characters
    try:
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        code = 1
    sys.exit(code)


def _run() -> int:
    """Run the app; return its exit code, with a line on stderr for what is a user's to mend."""
    from softhub.errors import SoftHubError

    try:
        from softhub.cli.app import app
        from softhub.cli.output import route_warnings, say

        route_warnings()
        app(prog_name="softhub")
    except SoftHubError as error:
        say(f"error: {error}")
        return 1
    except SystemExit as finished:
        return finished.code if isinstance(finished.code, int) else 1
    except KeyboardInterrupt:  # before the app runs; there, `Verbs` sees to it
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def run_recipe(recipe: Callable[[], None]) -> None:
    """Run a recipe's `main` as a command runs: one line for a user's mistake, and no traceback.

    Of several processes the first alone has a stdout.

    Args:
        recipe: The recipe's `main`.
    """
    from softhub.cli.launcher_check import warn_of_missing_processes
    from softhub.cli.output import route_warnings, say
    from softhub.errors import SoftHubError
    from softhub.training import TrainingInterrupted

    route_warnings()
    warn_of_missing_processes()
    if os.environ.get("RANK", "0") != "0":
        _silence_stdout()
    try:
        recipe()
    except TrainingInterrupted as stopped:
        say(str(stopped))
        sys.exit(INTERRUPTED)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(INTERRUPTED)
    except SoftHubError as error:
        say(f"error: {error}")
        sys.exit(1)


def _silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
