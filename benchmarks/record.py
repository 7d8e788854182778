"""Records of benchmarks: rows of runs, versions, hardware and command lines."""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

import torch

from softhub.experiments.machine import machine
from softhub.experiments.records import append_record, read_records
from softhub.files import replace_file

# Some benchmarks use what the tests build, such as tiny models and servers.
sys.path.insert(0, str(Path(__file__).parents[1]))

RESULTS = Path(__file__).parent / "results"
DEMO_BASE = "recipes/data/files/SmolLM2-135M-Instruct.Q4_1.gguf"
DEMO_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "huggingface-hub")


def command_line(doc):
    """Return a parser whose help is the docstring of a script."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def surroundings():
    """Return the versions and hardware on which the figures depend."""
    return {
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        **processor(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
    }


def processor():
    """Return the processor and the number of threads, on which the seconds of a run depend."""
    found = machine()
    return {"cpu": found["processor"], "torch_threads": found["threads"]}


def cpu_seconds():
    """Return the CPU seconds that this process has used."""
    times = os.times()
    return times.user + times.system


def dev_losses(result):
    """Return the dev losses of a training run by step."""
    return {int(at["step"]): at["eval_loss"] for at in result.history if "eval_loss" in at}


def dev_accuracies(result):
    """Return the dev accuracies of a training run in order; empty for generation."""
    return [at["eval_accuracy"] for at in result.history if "eval_accuracy" in at]


def read_rows(path):
    """Return the rows of earlier runs, one per line; empty without a file."""
    return read_records(path, dict)


def keep_row(path, row):
    """Append a row as soon as it is finished, so that a benchmark can be resumed.

    The rows of one file may be computed on several days, each with another processor, so that each
    row names its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    append_record(path, {**row, **processor()})


def write(name, figures, folder=RESULTS):
    """Write `<name>.json` to a folder; an interrupted call leaves the earlier file."""
    folder.mkdir(exist_ok=True)
    record = {
        "command": f"python {Path(sys.argv[0]).as_posix()} {' '.join(sys.argv[1:])}".strip(),
        **figures,
        **surroundings(),
    }
    path = folder / f"{name}.json"
    replace_file(path, (json.dumps(record, indent=2) + "\n").encode())
    print(f"Written: {path}", file=sys.stderr)
