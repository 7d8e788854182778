"""Small adapters for the hub's tests, made without torch."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from softhub.adapter.layout import CARD, CONFIG, MANIFEST, WEIGHTS, sha256_of
from softhub.adapter.manifest import Manifest, PrefixShape, RecordedMetric

P, H = 4, 32
BASE = "tiny/llama"


def weights(seed: int, *, rows: int = P, width: int = H) -> bytes:
    """A safetensors file with one float32 matrix that depends on `seed`."""
    body = struct.pack(
        f"<{rows * width}f", *(((seed * 31 + i * 7) % 101 - 50) / 50 for i in range(rows * width))
    )
    return safetensors("F32", [rows, width], body)


def safetensors(dtype: str, shape: Sequence[int], body: bytes) -> bytes:
    entry = {"dtype": dtype, "shape": list(shape), "data_offsets": [0, len(body)]}
    header = json.dumps({"prompt_embeddings": entry}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + body


def config(
    *, base: str | None = BASE, rows: int = P, width: int = H, prefix: PrefixShape | None = None
) -> bytes:
    """`adapter_config.json` as PEFT 0.21 writes it, but for the fields that are None."""
    of_prefix = (
        {
            "num_attention_heads": prefix.num_key_value_heads,
            "num_layers": prefix.num_layers,
            "peft_type": "PREFIX_TUNING",
            "token_dim": prefix.layer_width,
        }
        if prefix
        else {}
    )
    return json.dumps(
        {
            "base_model_name_or_path": base,
            "inference_mode": True,
            "num_attention_heads": None,
            "num_layers": None,
            "num_transformer_submodules": 1,
            "num_virtual_tokens": rows,
            "peft_type": "PROMPT_TUNING",
            "prompt_tuning_init": "RANDOM",
            "prompt_tuning_init_text": None,
            "task_type": "CAUSAL_LM",
            "token_dim": width,
            **of_prefix,
        },
        indent=2,
    ).encode()


def card(
    *,
    task: str = "sentiment",
    base: str = BASE,
    tags: Sequence[str] = (),
    language: str = "en",
    license: str = "apache-2.0",
    datasets: Sequence[str] = (),
    body: str = "# A soft prompt\n",
) -> bytes:
    front = {
        "library_name": "peft",
        "base_model": base,
        "base_model_relation": "adapter",
        "pipeline_tag": "text-generation",
        "tags": ["softhub", "soft-prompt", "prompt-tuning", task, *tags],
        "language": [language],
        "license": license,
        "datasets": list(datasets),
    }
    return f"---\n{yaml.safe_dump(front)}---\n{body}".encode()


def metric(value: float, name: str = "accuracy") -> RecordedMetric:
    return RecordedMetric(name, value, value - 0.02, value + 0.02, "test", 300, {"majority": 0.5})


def adapter_files(
    seed: int = 0,
    *,
    task: str = "sentiment",
    kind: str = "classification",
    base: str = BASE,
    rows: int = P,
    width: int = H,
    score: float = 0.9,
    fingerprint: Mapping[str, Any] | None = None,
    prefix: PrefixShape | None = None,
    **card_fields: Any,
) -> dict[str, bytes]:
    """The four files of an adapter as softhub writes them."""
    files = {
        WEIGHTS: weights(seed, rows=rows, width=width),
        CONFIG: config(base=base, rows=rows, width=width, prefix=prefix),
    }
    manifest = Manifest(
        base_model=base,
        task_type="CAUSAL_LM",
        num_virtual_tokens=rows,
        hidden_size=None if prefix else width,
        prefix=prefix,
        base_revision=None,
        base_quantization=None,
        fingerprint=fingerprint,
        task={"name": task, "kind": kind},
        provenance={"seed": seed},
        metrics=(metric(score),),
        license=card_fields.get("license", "apache-2.0"),
        files={name: sha256_of(data) for name, data in files.items()},
        softhub_version="0.0.0",
    )
    files[MANIFEST] = manifest.to_bytes()
    files[CARD] = card(task=task, base=base, **card_fields)
    return files


def plain_peft_files(seed: int = 0, *, base: str = BASE) -> dict[str, bytes]:
    """The files of an adapter as a user of plain PEFT publishes it."""
    front = {"library_name": "peft", "base_model": base, "tags": [f"base_model:adapter:{base}"]}
    return {
        WEIGHTS: weights(seed),
        CONFIG: config(base=base),
        CARD: f"---\n{yaml.safe_dump(front)}---\n# Model Card\n".encode(),
    }


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder
