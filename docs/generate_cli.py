"""Write docs/cli.md from the help of every verb; `--check` only tells whether it is current.

python docs/generate_cli.py [--check]
"""

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("cli.md")
VERBS = (
    (),
    ("recipes",),
    ("recipes", "list"),
    ("recipes", "copy"),
    ("train",),
    ("predict",),
    ("generate",),
    ("push",),
    ("pull",),
    ("list",),
    ("info",),
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
"""


def render() -> str:
    """Return the page."""
    return "\n".join([INTRODUCTION, *(section(verb) for verb in VERBS)])


def section(verb: tuple[str, ...]) -> str:
    """Return one verb's heading and help."""
    title = " ".join(("softhub", *verb))
    command = [sys.executable, "-c", "from softhub.cli import main; main()", *verb, "--help"]
    # click wraps at the terminal's width less two, and at 80 at most.
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
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
