"""Write docs/cli.md from the help of every verb; `--check` only tells whether it is current.

python docs/generate_cli.py [--check]
"""

import sys
from pathlib import Path

from typer.testing import CliRunner

from softhub.cli.app import app

PAGE = Path(__file__).with_name("cli.md")
VERBS = (
    (),
    ("recipes",),
    ("recipes", "list"),
    ("recipes", "copy"),
    ("init-task",),
    ("train",),
    ("compare",),
    ("runs",),
    ("distill",),
    ("predict",),
    ("generate",),
    ("inspect",),
    ("evaluate",),
    ("calibrate",),
    ("push",),
    ("pull",),
    ("list",),
    ("info",),
    ("search",),
    ("similar",),
    ("log",),
    ("diff",),
    ("tag",),
    ("untag",),
    ("verify",),
    ("deprecate",),
    ("delete",),
    ("lock",),
    ("login",),
    ("whoami",),
    ("env",),
)
INTRODUCTION = """\
# The `softhub` command

<!-- Written by docs/generate_cli.py from the code; do not edit. -->

Data goes to stdout, everything else to stderr. Tables are tab-separated when piped, and `--json`
prints JSON (`predict` and `generate`: one object a line).

Exit codes: 0 done, 1 a known error (one line on stderr), 2 wrong usage, 130 interrupted.

| variable | means |
|---|---|
| `SOFTHUB_HUB` | the hub where `--hub` is not given; `local` by default |
| `SOFTHUB_BASE` | the base model where `--base` is not given |
| `SOFTHUB_HOME` | where the local hub and converted base models lie; `~/.softhub` by default |
| `SOFTHUB_OFFLINE` | `1` keeps softhub off the network, as `HF_HUB_OFFLINE` does |
| `SOFTHUB_TOKEN` | access token for the remote hub that `SOFTHUB_HUB` names, and for no other |
| `SOFTHUB_USER` | author of pushes to a local hub; the account's name by default |
"""


def render() -> str:
    """Return the page."""
    return "\n".join([INTRODUCTION, *(section(verb) for verb in VERBS)])


def section(verb: tuple[str, ...]) -> str:
    """Return one verb's heading and help."""
    title = " ".join(("softhub", *verb))
    width = {"COLUMNS": "80"}
    shown = CliRunner().invoke(app, [*verb, "--help"], prog_name="softhub", env=width)
    return f"## `{title}`\n\n```text\n{shown.stdout.rstrip()}\n```\n"


def main() -> None:
    """Write the page, or check it."""
    page = render()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page:
        sys.exit(f"{PAGE} is not what the code says; run: python docs/generate_cli.py")


if __name__ == "__main__":
    main()
