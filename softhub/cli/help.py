"""Plain-text help: verbs in sections, and arguments without Python types."""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from softhub.experiments.console import INTERRUPTED, say

_BRACES = str.maketrans("", "", "{}")
_METAVARS = {"int": "N", "int range": "N", "float": "X", "float range": "X"}


class Verb(TyperCommand):
    """A command with conventional help: `FOLDER` and `--limit N`, not `{FOLDER}` and `<int>`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line."""
        return [piece.translate(_BRACES) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of arguments and options."""
        rows: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
        for parameter in self.get_params(ctx):
            kind, record = parameter.param_type_name, parameter.get_help_record(ctx)
            if record is not None:
                name, _, type_name = record[0].partition(" <")
                if type_name and kind == "option":
                    name += " " + _METAVARS.get(type_name.rstrip(">"), "TEXT")
                rows[kind].append((name, record[1]))
        for kind, records in rows.items():
            if records:
                with formatter.section(f"{kind.title()}s"):
                    formatter.write_dl(records)


class Verbs(TyperGroup):
    """A group that lists its verbs by help panel and can be interrupted."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; on Ctrl-C print one line and exit with the code that shells expect."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(INTERRUPTED) from None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each help panel, with a line for each verb."""
        shown = {name: verb for name, verb in self.commands.items() if not verb.hidden}
        width = max(map(len, shown))
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, verb in shown.items():
            panel = str(getattr(verb, "rich_help_panel", None) or "Commands")
            summary = verb.get_short_help_str(formatter.width - width - 4)
            panels.setdefault(panel, []).append((f"{name:<{width}}", summary))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)
