"""`softhub env`: versions, hardware and paths for a bug report."""

import os
import sys

from softhub.cli.options import JsonOption
from softhub.cli.output import emit_facts, emit_json
from softhub.config import softhub_home


def env(as_json: JsonOption = False) -> None:
    """Show versions, hardware and paths for a bug report.

    Access tokens are never shown.
    """
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
