"""The entry point: what it loads, its exit codes, and where its lines go."""

import errno
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import softhub as package
from softhub.errors import SoftHubWarning
from softhub.experiments.console import route_warnings
from softhub.hub import Hub
from tests.command import Command
from tests.hub.adapters import adapter_files, write

SOFTHUB = [sys.executable, "-c", "from softhub.cli import main; main()"]
HEAVY = ("torch", "transformers", "peft", "accelerate", "datasets", "huggingface_hub", "numpy")
VERBS = (
    *("init-task", "train", "compare", "runs", "distill", "predict", "generate", "inspect"),
    *("evaluate", "calibrate", "push", "pull", "list", "info", "search", "similar"),
    *("log", "diff", "tag", "untag", "verify", "deprecate", "delete", "lock", "login", "whoami"),
    *("env", "recipes"),
)
CAPTURED: dict[str, Any] = {"capture_output": True, "text": True}
LEAVES = (*((verb,) for verb in VERBS[:-1]), ("recipes", "list"), ("recipes", "copy"))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list", "--help"], ["list"]])
def test_light_commands_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom softhub.cli import main\n"
        f"sys.argv = ['softhub', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        f"found = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_names_every_verb(softhub: Command) -> None:
    shown = softhub("--help")
    assert shown.code == 0
    assert all(f"\n  {verb} " in shown.out for verb in VERBS)


@pytest.mark.parametrize("verb", LEAVES, ids=" ".join)
def test_every_verb_shows_examples(softhub: Command, verb: tuple[str, ...]) -> None:
    shown = softhub(*verb, "--help")
    assert shown.code == 0
    assert f"Examples:\n    softhub {' '.join(verb)}" in shown.out


@pytest.mark.parametrize("verb", LEAVES, ids=" ".join)
def test_help_has_plain_words_in_place_of_python_types(
    softhub: Command, verb: tuple[str, ...]
) -> None:
    shown = softhub(*verb, "--help")
    assert not re.search(r"<\w+( range)?>|\{|list\[|Optional", shown.out.partition("Examples:")[0])
    assert softhub(*verb, "-h") == shown


@pytest.mark.parametrize("group", [(), ("recipes",)], ids=str)
def test_one_line_help_is_not_truncated_at_80_columns(
    softhub: Command, group: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = softhub(*group, "--help").out
    assert "..." not in shown.partition("\n\n")[2]
    assert max(map(len, shown.splitlines())) <= 80


def test_help_lists_verbs_by_section_and_uses_the_width_of_the_terminal(
    softhub: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = softhub("--help").out
    places = [shown.index(f"\n{section}:\n") for section in ("Train", "Use", "Hub", "Inspect")]
    assert places == sorted(places)
    verbs = [shown.index(f"\n  {verb} ") for verb in ("evaluate", "predict", "push", "env")]
    assert places < verbs and verbs[:-1] < places[1:]
    for columns in (80, 110):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = softhub("distill", "--help").out.partition("Examples:")[0].splitlines()
        assert columns - 12 < max(map(len, lines)) <= columns


def test_version(softhub: Command) -> None:
    assert softhub("--version").out == package.__version__ + "\n"


def test_known_error_is_one_line_on_stderr_and_code_1(softhub: Command) -> None:
    done = softhub("info", "me/nothing")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["push"], ["predict", "me/x"], ["list", "--no-such-option"]]
)
def test_wrong_usage_is_code_2(softhub: Command, arguments: list[str]) -> None:
    done = softhub(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Usage: softhub" in done.err


def test_a_bug_keeps_its_traceback(softhub: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Hub) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Hub, "list", broken)
    with pytest.raises(ZeroDivisionError):
        softhub("list")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "/a/hub"), "Permission denied (/a/hub). Check"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 9_000), "File name too long (x"),
        (ConnectionError("the other side\nhung up"), "the other side hung up."),
        (TimeoutError(), "TimeoutError."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, OSError) else "",
)
def test_an_error_of_the_system_is_one_line(
    softhub: Command, monkeypatch: pytest.MonkeyPatch, error: OSError, line: str
) -> None:
    def refused(self: Hub) -> None:
        raise error

    monkeypatch.setattr(Hub, "list", refused)
    done = softhub("list")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"error: {line}")
    assert done.err.count("\n") == 1 and len(done.err) < 500


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "TEXT", "hello", "--base", "b"),
        ("info", "TEXT"),
        ("runs", "TEXT"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_long_text_in_place_of_a_name_is_one_line(
    softhub: Command, arguments: tuple[str, ...]
) -> None:
    done = softhub(*("a long text " * 100 if each == "TEXT" else each for each in arguments))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ") and done.err.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="file descriptors of POSIX")
@pytest.mark.parametrize(
    ("closed", "arguments", "err"),
    [
        (0, ["predict", "me/x", "--base", "b"], "error: stdin contains no text."),
        (1, ["list", "--json"], ""),
        (1, ["log", "me/mood"], ""),
        (2, ["list", "--hub", "local:empty"], ""),
        (2, ["info", "me/nothing"], ""),
    ],
)
def test_a_missing_stream_is_no_error(
    closed: int, arguments: list[str], err: str, tmp_path: Path
) -> None:
    Hub().push(write(tmp_path / "adapter", adapter_files()), "me/mood")
    script = f'exec "$@" {closed}{"<" if closed == 0 else ">"}&-'
    done = subprocess.run(["sh", "-c", script, "sh", *SOFTHUB, *arguments], **CAPTURED)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(err)
    assert done.stdout == ""
    assert done.returncode == (0 if arguments[0] in ("list", "log") else 1)


def test_warnings_of_softhub_are_one_line(
    softhub: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        route_warnings()
        for _ in range(2):  # as for each of two metrics; it is said once
            warnings.warn("the card\nis \x1b[31mred", SoftHubWarning, stacklevel=1)
    assert capfd.readouterr().err == "warning: the card is [31mred\n"


@pytest.mark.skipif(os.name == "nt", reason="signals and pipes of POSIX")
def test_interrupt_is_130_and_one_line() -> None:
    process = subprocess.Popen(
        [*SOFTHUB, "predict", "me/x", "--input", "-", "--base", "none"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in its background deaf to Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    _wait_until_reading(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


def test_an_interrupt_while_modules_are_imported_is_130_and_one_line() -> None:
    code = (
        "import sys\n"
        "class Press:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'softhub.experiments':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Press())\n"
        "from softhub.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], **CAPTURED)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def _wait_until_reading(process: "subprocess.Popen[str]") -> None:
    """Fill the pipe: once this much was taken out of it, the command is in its read."""
    assert process.stdin is not None
    process.stdin.write("text\n" * 40_000)
    process.stdin.flush()


@pytest.mark.skipif(os.name == "nt", reason="signals and pipes of POSIX")
@pytest.mark.parametrize("arguments", [["--help"], ["list", "--json"]])
def test_closed_pipe_is_quiet(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [*SOFTHUB, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, env=buffered
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
