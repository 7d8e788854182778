"""Read a base model out of a GGUF file: converted to safetensors once, and cached."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from softhub.adapter.portable import to_hub_name
from softhub.config import softhub_home
from softhub.errors import BaseModelError, MissingDependency

logger = logging.getLogger("softhub")

_RECORD = "softhub_base.json"
"""File in a converted base's folder: its canonical name and how its weights were quantized."""

_SAMPLE_BYTES = 8 * 2**20


def convert_gguf(path: Path, name: str | None) -> Path:
    """Convert a GGUF file to a folder of safetensors under `$SOFTHUB_HOME/bases`.

    Args:
        path: The `.gguf` file.
        name: Canonical name of the base; the default is what the file says about itself.

    Returns:
        The folder. A file that has been converted before is not converted again.

    Raises:
        BaseModelError: There is no such file.
        MissingDependency: The gguf package is not installed.
    """
    if not path.is_file():
        raise BaseModelError(f"No GGUF file at {str(path)!r}: check the path.")
    folder = softhub_home() / "bases" / f"{path.stem}-{_sample_hash(path)}"
    if (folder / _RECORD).is_file():
        return folder
    logger.warning("Converting %s to safetensors; this is done only once.", path.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
    try:
        _convert(path, partial, name)
        partial.replace(folder)
    except OSError:
        # Another process may have converted the same file meanwhile; its folder serves as well.
        if not (folder / _RECORD).is_file():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def read_record(folder: Path) -> dict[str, Any]:
    """Return the name and quantization recorded in a converted base's folder; else nothing."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _convert(path: Path, folder: Path, name: str | None) -> None:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise MissingDependency(
            "Reading a .gguf file requires the gguf package: pip install 'softhub[demo]'"
        ) from error
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    reader = GGUFReader(path)
    model = AutoModelForCausalLM.from_pretrained(
        str(path.parent),
        gguf_file=path.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = {"name": name or _declared_name(path, reader), "quantization": _main_type(reader)}
    (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _main_type(reader: Any) -> str:
    """Return the type that most weights are stored in, e.g. `gguf-q4_1`."""
    elements: dict[str, int] = {}
    for tensor in reader.tensors:
        kind = tensor.tensor_type.name.lower()
        elements[kind] = elements.get(kind, 0) + int(tensor.n_elements)
    return f"gguf-{max(elements, key=lambda kind: elements[kind])}"


def _declared_name(path: Path, reader: Any) -> str:
    """Return `organization/file-stem` without the quantization suffix."""
    field = reader.get_field("general.organization")
    stem = re.sub(r"[.-](i?q\d\w*|f16|f32|bf16)$", "", path.stem, flags=re.IGNORECASE)
    organization = to_hub_name(str(field.contents())) if field else ""
    name = to_hub_name(stem) or "local-base"
    return f"{organization}/{name}" if organization else name


def _sample_hash(path: Path) -> str:
    """Hash the size, head and tail: enough to tell files apart without reading gigabytes."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_SAMPLE_BYTES))
        file.seek(max(0, size - _SAMPLE_BYTES))
        digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:12]
