"""The `softhub` command: verbs, output modes and exit codes; other rooms do the work.

Exit codes: 0 success, 1 a known error (one line on stderr), 2 wrong usage, 130 interrupted.
"""

import io
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from softhub.experiments.console import FAILED, exit_code_of, silence_stdout
    except KeyboardInterrupt:  # whose handler is in this module
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an old console knows few characters
    try:
        code = exit_code_of(_run)
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()
        code = FAILED
    sys.exit(code)


def _run() -> None:
    from softhub.cli.app import app
    from softhub.experiments.console import route_warnings

    route_warnings()
    app(prog_name="softhub")
