"""Write docs/cli.md from the help of every verb; `--check` only checks whether it is up to date.

python docs/generate_cli.py [--check]
"""

import sys
from pathlib import Path

from typer.main import get_command
from typer.testing import CliRunner

from softhub.cli.app import app

PAGE = Path(__file__).with_name("cli.md")
INTRODUCTION = """\
# The `softhub` command

<!-- Written by docs/generate_cli.py from the code; do not edit. -->

Data is written to stdout, and everything else to stderr. Tables are tab-separated when piped.
`--json` prints JSON (`predict` and `generate` print one object per line).

Exit codes: 0 success, 1 known error (one line on stderr), 2 wrong usage, 130 interrupted.

| variable | meaning |
|---|---|
| `SOFTHUB_HUB` | default of `--hub`; `local` if it is not set |
| `SOFTHUB_BASE` | default of `--base` (except in `env`), and of `base_model` in recipes |
| `SOFTHUB_HOME` | folder of the local hub and of converted base models; `~/.softhub` by default |
| `SOFTHUB_OFFLINE` | `1` contacts no remote hub; for base models and data set `HF_HUB_OFFLINE=1` |
| `SOFTHUB_TOKEN` | access token, sent only to the remote hub that `SOFTHUB_HUB` names |
| `SOFTHUB_QUIET` | `1` is `--quiet` for everything |
| `SOFTHUB_USER` | author of pushes to a local hub; the name of the user account by default |
"""


def render() -> str:
    """Return the page."""
    return "\n".join([INTRODUCTION, *map(section, verbs(get_command(app)))])


def verbs(command, path=()):
    """Yield the path of a command and those of the verbs below it, in the order of the help."""
    yield path
    for name, verb in getattr(command, "commands", {}).items():
        if not verb.hidden:
            yield from verbs(verb, (*path, name))


def section(verb: tuple[str, ...]) -> str:
    """Return one verb's heading and help."""
    title = " ".join(("softhub", *verb))
    shown = CliRunner().invoke(app, [*verb, "--help"], prog_name="softhub")
    return f"## `{title}`\n\n```text\n{shown.stdout.rstrip()}\n```\n"


def main() -> None:
    """Write the page, or check it."""
    page = render()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page:
        sys.exit(f"{PAGE} is out of date; run: python docs/generate_cli.py")


if __name__ == "__main__":
    main()
