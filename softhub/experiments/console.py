"""Lines for the person at the terminal: messages on stderr, and errors without a traceback."""

import errno
import logging
import os
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from softhub.errors import (
    PredictionInterrupted,
    SoftHubError,
    SoftHubWarning,
    TrainingInterrupted,
)
from softhub.terminal import is_quiet, quiet_libraries

FAILED, INTERRUPTED = 1, 130
"""Exit codes of a known error and of Ctrl-C; wrong usage is 2, as in every command line."""
_MOST_SHOWN = 200  # characters of a file name


def printable(text: str) -> str:
    """Remove everything that a terminal would interpret; line breaks and tabs stay.

    Control characters (which escape sequences begin with), marks that reverse the reading
    direction and other invisible format characters are removed: names and texts may be untrusted.
    """
    return "".join(
        character
        for character in text
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs")
    )


def one_line(text: str) -> str:
    """Return `text` printable and on one line."""
    return " ".join(printable(text).split())


def say(text: str) -> None:
    """Print a message for the user, on one line of stderr."""
    print(one_line(text), file=sys.stderr)


def note(text: str) -> None:
    """Print a message that is neither a warning nor an error, unless quiet."""
    if not is_quiet():
        say(text)


def route_warnings() -> None:
    """Print softhub's warnings and log records as plain lines, without libraries' bars in logs."""
    quiet_libraries()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("softhub").handlers = [handler]
    other = warnings.showwarning
    shown: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, SoftHubWarning):
            if str(message) not in shown:  # by each of several metrics, say
                say(f"warning: {message}")
            shown.add(str(message))
        else:
            other(message, category, filename, lineno, file, line)

    warnings.showwarning = show


def exit_code_of(call: Callable[[], object]) -> int:
    """Call a function and return its exit code; a known error is one line on stderr.

    Args:
        call: The function; what it returns is ignored.

    Returns:
        0, 1 for a `SoftHubError` or an error of the operating system, 130 for Ctrl-C, or the code
        of a `SystemExit`.

    Raises:
        BrokenPipeError: Whatever reads the output has ended.
    """
    _open_missing_streams()
    try:
        call()
    except (PredictionInterrupted, TrainingInterrupted) as stopped:
        say(str(stopped))
        return INTERRUPTED
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except SoftHubError as error:
        say(f"error: {error}")
        return FAILED
    except BrokenPipeError:  # whoever read the output has enough of it
        raise
    except OSError as error:
        say(f"error: {_explained(error)}")
        return FAILED
    except SystemExit as finished:
        return finished.code if isinstance(finished.code, int) else FAILED
    return 0


def _explained(error: OSError) -> str:
    """Return what an error of the operating system says, with the file and what to do."""
    name = str(error.filename or "")
    where = f" ({name if len(name) <= _MOST_SHOWN else name[:_MOST_SHOWN] + '…'})" if name else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full{where}. Make room and run the command again."
    fix = " Check the path and its permissions." if name else ""
    return f"{error.strerror or str(error) or type(error).__name__}{where}.{fix}"


def _open_missing_streams() -> None:
    """Replace the standard streams that the caller closed, as in `softhub list 2>&-`."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115


def silence_stdout() -> None:
    """Redirect stdout to nothing, so that the interpreter's last flush cannot fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
