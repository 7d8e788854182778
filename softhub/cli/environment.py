"""`softhub env`: versions, hardware and paths for a bug report, and what a base can do."""

import os
import sys
from typing import Annotated

import typer

from softhub.cli.options import JsonOption
from softhub.cli.output import emit_facts, emit_json
from softhub.config import softhub_home


def env(
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="MODEL", help="Base model to test for exactness."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show versions, hardware and paths, or what a base model can do.

    Access tokens are never shown. With --base, the model is loaded and tested: in which
    ways batches, shared prompts and generation give exactly the results of each row alone, and
    whether it can run prefixes.
    """
    if base is not None:
        from softhub.model.loading import load_base
        from softhub.model.prefix import prefix_refusal

        loaded = load_base(base)
        refused = prefix_refusal(loaded)
        facts = {
            **loaded.capabilities.findings(),
            "prefixes": "exact" if refused is None else f"refused: {refused}",
        }
        emit_json(facts) if as_json else emit_facts([*facts.items()])
        return

    from huggingface_hub.constants import HF_HOME

    from softhub.experiments.machine import machine

    hardware = machine()
    facts = {
        **hardware.pop("packages"),
        **hardware,
        "executable": sys.executable,
        "softhub home": str(softhub_home()),
        "hub": os.environ.get("SOFTHUB_HUB") or "local",
        "base": os.environ.get("SOFTHUB_BASE"),
        "hugging face home": HF_HOME,
    }
    if as_json:
        emit_json(facts)
    else:
        emit_facts([(name, "none" if value is None else value) for name, value in facts.items()])
