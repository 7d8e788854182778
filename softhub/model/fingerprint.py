"""Compute and compare fingerprints, which identify a base model beyond its name.

A fingerprint contains the structure (model type, width, layers, tokenizer), exact digests of
sampled weights, and a small numeric sketch. The digests are of the values *rounded to bfloat16* and
*rounded to float16*, so that the same weights match whichever of the usual dtypes they are in.
Quantization changes the matrices but not the one-dimensional norm weights, while any training of
the norms changes some of them: equal norm digests with matrices within quantization error therefore
mean the same base with another quantization, and different norm digests mean another base.

Equal weights compute something else with other settings, such as rotary factors. A file format or a
release of transformers may lack some, so only settings that both sides have are compared. Different
settings do not make it a different base; they cause a warning.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_EMBEDDING_ROWS = 64
_SPREAD = 2048
_MATRIX_ROWS = 4
_SKETCH_ROWS = 8
_SKETCH_COLUMNS = 16
# A 4-bit block format deviates by up to ~10 % of a row's norm, an 8-bit one by ~1 %, and another
# model of the same shape by ~140 %. The norm digests make the finer distinctions.
_QUANTIZATION_TOLERANCE = 0.25
_HALF_PRECISION_TOLERANCE = 0.01
_SETTING = re.compile(r"(window|scalar|multiplier|scaling|scale|per_tok|rope_type)$")
"""Names of numbers without a fraction, and of words, that change what a config computes."""
_NO_SETTING = re.compile(r"drop|init|std|loss|aux|jitter|noise|penalty|temperature|top_p|threshold")
"""Names of fractions that only training or generation reads."""
_GROUPS = {
    "embeddings": "embeddings",
    "matrices": "matrices",
    "norms": "norms",
    "others": "other weights",
}
_STRUCTURE = {
    "model_type": "model type",
    "hidden_size": "hidden size",
    "num_layers": "number of layers",
    "tokenizer": "tokenizer",
}


@dataclass(frozen=True)
class Verdict:
    """Result of comparing a prompt's base with the loaded base.

    Attributes:
        kind: `"exact"`, `"quantized"` (same base with another quantization), `"unknown"` or
            `"different"`.
        reason: The reason as a sentence.
    """

    kind: str
    reason: str


def compute_fingerprint(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, quantization: str | None
) -> dict[str, Any]:
    """Compute a base's fingerprint.

    Args:
        model: The base. Weights that are packed or not in memory are left out.
        tokenizer: Its tokenizer.
        quantization: How the weights were quantized, or None.

    Returns:
        A JSON-serializable mapping of about 1.8 KB; see the module's docstring.
    """
    config = model.config.get_text_config()
    embedding = cast(torch.Tensor, model.get_input_embeddings().weight).detach()  # [V, H]
    return {
        "model_type": str(model.config.model_type),
        "hidden_size": int(embedding.shape[-1]),
        "num_layers": int(config.num_hidden_layers),
        "vocab_size": int(embedding.shape[0]),
        "tokenizer": tokenizer_hash(tokenizer),
        "embeddings": _digests([_embedding_rows(embedding)]),
        **{group: _digests(weights) for group, weights in _sampled(model, embedding).items()},
        "settings": _settings(config.to_dict()),
        "sketch": _sketch(embedding),
        "dtype": str(embedding.dtype).removeprefix("torch."),
        "quantization": quantization,
    }


def compare_fingerprints(recorded: Mapping[str, Any] | None, present: Mapping[str, Any]) -> Verdict:
    """Compare the base that a prompt was made for with the loaded base.

    The vocabulary size is not compared, because embedding tables are often resized.

    Args:
        recorded: Fingerprint in the prompt's manifest, or None if it has none.
        present: Fingerprint of the loaded base.
    """
    if recorded is None:
        return Verdict("unknown", "the adapter records no fingerprint of its base")
    # Step 1: another structure or tokenizer is another model.
    for key, words in _STRUCTURE.items():
        if recorded.get(key) is not None and recorded[key] != present[key]:
            found = "" if key == "tokenizer" else f" ({recorded[key]} vs. {present[key]})"
            return Verdict("different", f"the {words} differs{found}")
    verdict = _compare_weights(recorded, present)
    other = _other_settings(recorded.get("settings"), present.get("settings"))
    if other and verdict.kind in ("exact", "quantized"):
        return Verdict("unknown", f"{verdict.reason}, but the settings differ: {other}")
    return verdict


def _compare_weights(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> Verdict:
    # Step 2: equal digests of all sampled weights mean the same model.
    groups = {
        group: _same(recorded.get(group), present.get(group))
        for group in _GROUPS
        if group != "others" or (recorded.get(group) and present.get(group))  # older ones lack it
    }
    if all(same is True for same in groups.values()):
        return Verdict("exact", "all sampled weights are equal")
    # Step 3: check whether rounding or quantization explains the difference.
    if recorded.get("quantization") == present["quantization"] and not present["quantization"]:
        return _compare_unquantized(groups, recorded, present)
    return _compare_quantized(groups, recorded, present)


def _compare_unquantized(
    groups: Mapping[str, bool | None], recorded: Mapping[str, Any], present: Mapping[str, Any]
) -> Verdict:
    if {recorded.get("dtype"), present["dtype"]} == {"bfloat16", "float16"}:
        # Float32 weights rounded to each share no rounding, so that equality cannot be decided.
        error = _sketch_error(recorded.get("sketch"), present["sketch"])
        if error is not None and error < _HALF_PRECISION_TOLERANCE:
            return Verdict(
                "unknown", "bfloat16 and float16 weights can only be compared approximately"
            )
    differing = [_GROUPS[group] for group, same in groups.items() if same is False]
    if differing:
        return Verdict("different", f"the sampled {' and '.join(differing)} differ")
    missing = [_GROUPS[group] for group, same in groups.items() if same is None]
    return Verdict("unknown", f"the {' and '.join(missing)} could not be compared")


def _compare_quantized(
    groups: Mapping[str, bool | None], recorded: Mapping[str, Any], present: Mapping[str, Any]
) -> Verdict:
    sides = f"{recorded.get('quantization') or 'plain'} vs. {present['quantization'] or 'plain'}"
    if groups["norms"] is False:
        reason = "the norm weights differ, which quantization does not change"
        return Verdict("different", f"{reason} ({sides})")
    error = _sketch_error(recorded.get("sketch"), present["sketch"])
    if error is None or groups["norms"] is None:
        return Verdict("unknown", "the norm weights or the sketch could not be compared")
    if error > _QUANTIZATION_TOLERANCE:
        return Verdict("different", f"the sampled embeddings are {error:.0%} apart ({sides})")
    return Verdict("quantized", f"it is the same base with another quantization ({sides})")


def _same(recorded: Any, present: Mapping[str, str] | None) -> bool | None:
    """Return whether digests match under any rounding; None if they cannot be compared."""
    if not isinstance(recorded, Mapping) or not present:
        return None
    return any(recorded.get(rounding) == digest for rounding, digest in present.items())


def _sketch_error(recorded: Any, present: list[float] | None) -> float | None:
    if not isinstance(recorded, list) or not present or len(recorded) != len(present):
        return None
    a, b = torch.tensor(recorded, dtype=torch.float64), torch.tensor(present, dtype=torch.float64)
    return float((a - b).norm() / b.norm().clamp_min(1e-12))


def _other_settings(recorded: Any, present: Any) -> str | None:
    """Name the settings that both sides have and that differ, with both sides."""
    if not isinstance(recorded, Mapping) or not isinstance(present, Mapping):
        return None
    return ", ".join(
        f"{name} ({_listed(recorded[name])} vs. {_listed(present[name])})"
        for name in present
        if name in recorded and recorded[name] != present[name]
    )


def _listed(values: Any) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list) else str(values)


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash the vocabulary and merges, without added tokens, which are often changed.

    Args:
        tokenizer: The base's tokenizer.

    Returns:
        32 hexadecimal digits.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content = [sorted(tokenizer.get_vocab().items()), None]
    else:
        model = json.loads(backend.to_str())["model"]
        vocabulary, merges = model.get("vocab"), model.get("merges")
        if merges:
            vocabulary = _merged(vocabulary, merges)
        content = [sorted(vocabulary.items()) if isinstance(vocabulary, dict) else vocabulary]
        content.append(merges)
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()[:32]


def _merged(vocabulary: Mapping[str, int], merges: list[list[str] | str]) -> dict[str, int]:
    """Return the tokens that text can become: single characters and the results of merges.

    A GGUF file lists added and unused tokens in the vocabulary; the Hub's files separate them.
    """
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    made = {"".join(pair) for pair in pairs}
    return {token: index for token, index in vocabulary.items() if token in made or len(token) == 1}


def _sampled(model: PreTrainedModel, embedding: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """Return a few rows of every matrix, and whole vectors, in name order."""
    found: dict[str, list[torch.Tensor]] = {"matrices": [], "norms": [], "others": []}
    for name, weight in _readable_weights(model):
        sized = weight.dim() > 0 and weight.shape[0] == embedding.shape[0]
        if weight.dim() == 1 and name.endswith("weight"):
            found["norms"].append(weight)
        elif weight.dim() == 2 and not sized:
            found["matrices"].append(_few_rows(weight))
        elif weight.dim() < 2:  # biases, also of the vocabulary
            found["others"].append(_embedding_rows(weight) if sized else weight)
        elif weight.dim() > 2:  # of experts, or of a convolution
            found["others"].append(_few_rows(weight.flatten(0, -2)))
    # Also if it is tied: a file may have a copy of the embeddings for it.
    head = getattr(model.get_output_embeddings(), "weight", None)
    if head is not None and head.is_floating_point() and head.device.type != "meta":
        found["others"].append(_embedding_rows(head.detach()))
    return found


def _few_rows(matrix: torch.Tensor) -> torch.Tensor:
    return matrix[:: max(1, matrix.shape[0] // _MATRIX_ROWS)]  # [4 or so, in]


def _settings(config: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the values of each setting of a config, also in nested entries."""
    found: dict[str, set[Any]] = {}
    entries = [*config.items()]
    for name, value in entries:  # which grow
        if isinstance(value, Mapping) and name != "quantization_config":
            entries += value.items()
        elif _is_setting(str(name), value):
            # To six digits, because a GGUF file has them as float32.
            rounded = value if isinstance(value, str) else float(f"{value:.6g}")
            found.setdefault(name, set()).add(rounded)
    return {name: sorted(values, key=str) for name, values in sorted(found.items())}


def _is_setting(name: str, value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value) and not _NO_SETTING.search(name)
    return type(value) in (int, str) and _SETTING.search(name) is not None


def _readable_weights(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in sorted(model.named_parameters()):
        if parameter.is_floating_point() and parameter.device.type != "meta":
            yield name, parameter.detach()


def _embedding_rows(embedding: torch.Tensor) -> torch.Tensor:
    """Return rows spread over the first part of the table, which no resize changes: `[64, H]`.

    Of a small table these are the first rows, which stay in place when it grows.
    """
    stride = _SPREAD // _EMBEDDING_ROWS if embedding.shape[0] >= _SPREAD else 1
    return embedding[: stride * _EMBEDDING_ROWS : stride]


def _digests(tensors: list[torch.Tensor]) -> dict[str, str] | None:
    """Return the SHA-256 (first 32 hex digits) under each rounding; None without tensors."""
    if not tensors or any(tensor.device.type == "meta" for tensor in tensors):
        return None
    result = {}
    for dtype in (torch.bfloat16, torch.float16):
        digest = hashlib.sha256()
        for tensor in tensors:
            rounded = tensor.to("cpu").to(dtype).contiguous()
            digest.update(str(tuple(rounded.shape)).encode())
            # numpy has no bfloat16: hash the bits.
            digest.update(rounded.view(torch.int16).numpy().tobytes())
        result[str(dtype).removeprefix("torch.")] = digest.hexdigest()[:32]
    return result


def _sketch(embedding: torch.Tensor) -> list[float] | None:
    """Return `_SKETCH_ROWS * _SKETCH_COLUMNS` embedding values, to three digits."""
    if embedding.device.type == "meta":
        return None
    rows = _embedding_rows(embedding)  # [64, H]
    rows = rows[:: max(1, rows.shape[0] // _SKETCH_ROWS)][:_SKETCH_ROWS]  # [8, H]
    return [float(f"{value:.3g}") for value in rows[:, :_SKETCH_COLUMNS].float().flatten().tolist()]
