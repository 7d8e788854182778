"""A sound adapter as bytes, and ways to spoil exactly one thing about it."""

import json
import struct
from typing import Any

from softhub.adapter.layout import CARD, CONFIG, MANIFEST, WEIGHTS, WEIGHTS_KEY, sha256_of
from softhub.adapter.manifest import Manifest, RecordedMetric

P, H = 4, 8
BODY = struct.pack(f"<{P * H}f", *(number / 8 - 2 for number in range(P * H)))


def tensor_entry(**changes: Any) -> dict[str, Any]:
    """Return the header's entry of the sound tensor, changed; a value of `...` drops its key."""
    entry = {"dtype": "F32", "shape": [P, H], "data_offsets": [0, len(BODY)], **changes}
    return {key: value for key, value in entry.items() if value is not ...}


def weights(header: Any = None, body: bytes = BODY, *, length: int | None = None) -> bytes:
    """Return a safetensors file; `header` is an object or raw bytes, `length` the declared size."""
    if header is None:
        header = {"__metadata__": {"format": "pt"}, WEIGHTS_KEY: tensor_entry()}
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def config_record(**changes: Any) -> dict[str, Any]:
    """Return what PEFT 0.21 writes to `adapter_config.json`, changed; `...` drops a key."""
    record = {
        "auto_mapping": None,
        "base_model_name_or_path": "org/base",
        "inference_mode": True,
        "modules_to_save": None,
        "num_attention_heads": None,
        "num_layers": None,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": P,
        "peft_type": "PROMPT_TUNING",
        "peft_version": "0.21.2",
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "revision": None,
        "task_type": "CAUSAL_LM",
        "token_dim": H,
        "tokenizer_kwargs": None,
        "tokenizer_name_or_path": None,
        **changes,
    }
    return {key: value for key, value in record.items() if value is not ...}


def config(**changes: Any) -> bytes:
    """Return `adapter_config.json` with some keys changed."""
    return json.dumps(config_record(**changes)).encode()


PREFIX = {"num_layers": 2, "num_key_value_heads": 1, "head_dim": 2}
"""The shape of a prefix whose rows have H numbers."""


def prefix_config_record(**changes: Any) -> dict[str, Any]:
    """Return what PEFT writes for a prefix of that shape, changed."""
    fields = {
        "peft_type": "PREFIX_TUNING",
        "num_layers": 2,
        "num_attention_heads": 1,
        "token_dim": 2,
        "prefix_projection": False,
    }
    return config_record(**{**fields, **changes})


def metric_record(**changes: Any) -> dict[str, Any]:
    """Return the manifest's record of one score, changed."""
    return {
        "name": "accuracy",
        "value": 0.93,
        "low": 0.91,
        "high": 0.95,
        "split": "test",
        "examples": 1300,
        "baselines": {"majority": 0.62, "zero-shot": 0.88},
        **changes,
    }


TASK_RECORD = {
    "name": "sentiment",
    "kind": "classification",
    "template": "Review: {text}\nSentiment:",
    "text_column": "text",
    "verbalizer": [
        {"label": "negative", "words": [" negative", " bad"]},
        {"label": "positive", "words": [" positive"]},
    ],
    "max_length": None,
    "system": None,
    "generation": {},
    "description": "Sentiment of customer reviews.",
    "language": "en",
}


def manifest_fields(**changes: Any) -> dict[str, Any]:
    """Return the arguments of a sound `Manifest`, changed."""
    return {
        "base_model": "org/base",
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": P,
        "hidden_size": H,
        "base_revision": None,
        "base_quantization": None,
        "fingerprint": {"model_type": "llama", "layers": 2},
        "task": dict(TASK_RECORD),
        "provenance": {"dataset": {"id": "org/reviews", "train": {"examples": 500}}, "seed": 0},
        "metrics": (RecordedMetric(**metric_record()),),
        "license": "apache-2.0",
        "files": {},
        "softhub_version": "0.1.0",
        **changes,
    }


def manifest(**changes: Any) -> Manifest:
    """Return a sound manifest, changed, of no particular files."""
    return Manifest(**manifest_fields(**changes))


def sound_files() -> dict[str, bytes]:
    """Return all four files of a sound adapter."""
    return with_manifest({WEIGHTS: weights(), CONFIG: config(), CARD: b"# A card\n"})


def with_manifest(files: dict[str, bytes], /, **changes: Any) -> dict[str, bytes]:
    """Add the manifest that fits the files, some of its keys replaced; `...` drops a key.

    Written as plain JSON, so that records come out that `Manifest` itself would refuse.
    """
    record = manifest_fields(metrics=[metric_record()], schema_version=2, prefix=None)
    record["files"] = {name: sha256_of(files[name]) for name in (WEIGHTS, CONFIG)}
    record.update(changes)
    record = {key: value for key, value in record.items() if value is not ...}
    return {**files, MANIFEST: json.dumps(record).encode()}
