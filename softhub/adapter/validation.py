"""The one gate: whatever is pulled, pushed or loaded is checked here before anything uses it.

Nothing is executed and nothing is trusted: sizes are capped before reading, both JSON files and
the safetensors header are parsed strictly, and the parts must agree with each other.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from softhub.adapter import layout
from softhub.adapter.layout import CARD, CONFIG, FILES, MANIFEST, MAX_BYTES, REQUIRED, WEIGHTS
from softhub.adapter.manifest import MAX_HIDDEN_SIZE, MAX_VIRTUAL_TOKENS, TASK_TYPES, Manifest
from softhub.adapter.portable import UNKNOWN_BASE
from softhub.adapter.strict_json import parse_object, quoted
from softhub.errors import InvalidArtefact, UnsupportedAdapter

_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_EXPONENT = {"F32": 0x7F80_0000, "F16": 0x7C00, "BF16": 0x7F80}
"""Exponent bits by dtype: all set means NaN or infinite (IEEE 754; bfloat16 likewise)."""
_MAX_HEADER = 64 * 1024
_LENGTH_BYTES = 8
_CARD_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")

_CONVERSIONS = {
    "P_TUNING": "Load it in PEFT and save `model.get_prompt(batch_size=1)[0]` as a SoftPrompt.",
    "MULTITASK_PROMPT_TUNING": "Load it in PEFT and save `model.get_prompt(batch_size=1, "
    "task_ids=torch.tensor([i]))[0]` of each task i as a SoftPrompt.",
}


@dataclass(frozen=True)
class Adapter:
    """What the checks found in an adapter.

    Attributes:
        config: `adapter_config.json`.
        manifest: `softhub.json`, or None if plain PEFT saved the adapter.
        weights_sha256: Hash of the weights file.
        shape: Rows and columns of the stored tensor: `(P, H)`, or `(2P, H)` as PEFT saves
            encoder-decoder prompts with two submodules.
        dtype: `F32`, `F16` or `BF16`.
        total_bytes: Size of all files together.
    """

    config: Mapping[str, Any]
    manifest: Manifest | None
    weights_sha256: str
    shape: tuple[int, int]
    dtype: str
    total_bytes: int


def check_folder(folder: str | Path) -> Adapter:
    """Read and check an adapter folder; see `read_folder` and `check_files`."""
    return check_files(read_folder(folder), origin=str(folder))


def read_folder(folder: str | Path) -> dict[str, bytes]:
    """Read an adapter's files, and no others that may lie beside them.

    Raises:
        InvalidArtefact: The folder or a required file is missing, a file is too large, is no
            regular file, or is a link that leads out of the folder (and not into the blobs of
            the download cache that the folder is part of).
        UnsupportedAdapter: The only weights are pickled.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidArtefact(
            f"There is no folder {quoted(str(folder), 300)}: expected an adapter."
        )
    files = {name: _read_file(folder, name) for name in FILES if os.path.lexists(folder / name)}
    if WEIGHTS not in files and os.path.lexists(folder / layout.PICKLED_WEIGHTS):
        raise _pickled(str(folder))
    return files


def check_files(files: Mapping[str, bytes], *, origin: str) -> Adapter:
    """Check an adapter's files: each for itself, then that they belong together.

    Args:
        files: Contents by name.
        origin: Where they come from, for messages: a path or `repo_id@revision`.

    Raises:
        InvalidArtefact: Damaged, hostile or inconsistent; says what was found and expected.
        UnsupportedAdapter: Sound, but no prompt that softhub can use; says how to convert it
            where that is possible.
    """
    _check_presence(files, origin)
    config = parse_object(files[CONFIG], origin=f"{CONFIG} of {origin}")
    _check_config(config, f"{CONFIG} of {origin}")
    dtype, shape, _ = parse_weights(files[WEIGHTS], origin=f"{WEIGHTS} of {origin}")
    rows, width = shape
    _check_shape(config, rows, width, origin)
    manifest = _read_manifest(files, origin)
    if manifest is not None:
        _check_agreement(manifest, config, files, width, origin)
    _check_card(files.get(CARD, b""), origin)
    return Adapter(
        config=config,
        manifest=manifest,
        weights_sha256=layout.sha256_of(files[WEIGHTS]),
        shape=(rows, width),
        dtype=dtype,
        total_bytes=sum(len(data) for data in files.values()),
    )


def parse_weights(data: bytes, *, origin: str) -> tuple[str, tuple[int, ...], bytes]:
    """Parse a safetensors file that holds one prompt and nothing else.

    Format: 8 bytes little-endian header length, a JSON header, the tensors' bytes
    (https://github.com/huggingface/safetensors#format).

    Args:
        data: The whole file.
        origin: What to call it in messages.

    Returns:
        The dtype (`F32`, `F16` or `BF16`), the shape (two numbers) and the raw row-major bytes.

    Raises:
        InvalidArtefact: Malformed, not exactly one finite matrix named `prompt_embeddings`.
        UnsupportedAdapter: Sound, but of another dtype or with more tensors.
    """
    header, body = _split_weights(data, origin)
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise InvalidArtefact(f"__metadata__ of {origin} is {quoted(notes)}; expected texts.")
    if layout.WEIGHTS_KEY not in header:
        raise UnsupportedAdapter(
            f"{origin} holds {_names(header)}; expected the one tensor {layout.WEIGHTS_KEY!r} "
            "of prompt tuning. softhub loads no other adapters."
        )
    if len(header) > 1:
        raise UnsupportedAdapter(
            f"{origin} holds {_names(header)}; expected {layout.WEIGHTS_KEY!r} alone. "
            "Save it again in PEFT with save_embedding_layers=False and no modules_to_save."
        )
    dtype, shape = _check_tensor(header[layout.WEIGHTS_KEY], len(body), origin)
    _check_finite(dtype, body, origin)
    return dtype, shape, body


def _pickled(origin: str) -> UnsupportedAdapter:
    return UnsupportedAdapter(
        f"{origin} has its weights in {layout.PICKLED_WEIGHTS}, which is pickled: reading it could "
        f"run code. Expected {WEIGHTS}. If you trust its author, load it in PEFT and save it again "
        "with safe_serialization=True."
    )


def _read_file(folder: Path, name: str) -> bytes:
    path = folder / name
    _check_link(folder, path)
    try:
        data = layout.read_regular(path, most=MAX_BYTES[name])
    except OSError as error:
        raise InvalidArtefact(f"{path} cannot be read: {error.strerror}.") from error
    _check_size(name, len(data), str(folder))
    return data


def _check_link(folder: Path, path: Path) -> None:
    """Refuse a link that would make the adapter out of a file from elsewhere."""
    home, target = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    allowed = [home]
    allowed += [parent.parent / "blobs" for parent in home.parents if parent.name == "snapshots"]
    if not any(target.is_relative_to(place) for place in allowed):
        raise InvalidArtefact(
            f"{path} is a link to {quoted(str(target), 300)}, outside of its folder. "
            "Copy the file into the folder if it belongs there."
        )


def _check_presence(files: Mapping[str, bytes], origin: str) -> None:
    if WEIGHTS not in files and layout.PICKLED_WEIGHTS in files:
        raise _pickled(origin)
    for name in files:
        if name not in FILES:
            raise InvalidArtefact(
                f"{origin} holds {quoted(name)}; expected only {', '.join(FILES)}."
            )
    for name in REQUIRED:
        if name not in files:
            raise InvalidArtefact(
                f"{origin} has no {name}; expected an adapter with {' and '.join(REQUIRED)}."
            )
    for name, data in files.items():
        _check_size(name, len(data), origin)


def _check_size(name: str, size: int, origin: str) -> None:
    if size > MAX_BYTES[name]:
        fix = (
            " A prompt has kilobytes: save it again in PEFT with save_embedding_layers=False."
            if name == WEIGHTS
            else ""
        )
        raise InvalidArtefact(
            f"{name} of {origin} has more than {MAX_BYTES[name]} bytes, the limit for it.{fix}"
        )


def _check_config(config: Mapping[str, Any], origin: str) -> None:
    method, task_type = config.get("peft_type"), config.get("task_type")
    if method != "PROMPT_TUNING":
        conversion = _CONVERSIONS.get(str(method), "softhub loads prompt tuning only.")
        raise UnsupportedAdapter(
            f"{origin} says peft_type {quoted(method)}; expected 'PROMPT_TUNING'. {conversion}"
        )
    if task_type not in TASK_TYPES:
        raise UnsupportedAdapter(
            f"{origin} says task_type {quoted(task_type)}; expected {' or '.join(TASK_TYPES)}. "
            "A prompt for another task type depends on a head that is not part of it: train a "
            "causal or encoder-decoder model with a verbalizer instead."
        )
    if config.get("modules_to_save"):
        raise UnsupportedAdapter(
            f"{origin} says modules_to_save {quoted(config['modules_to_save'])}; expected none: "
            "the prompt would depend on layers that are not part of it."
        )
    if config.get("auto_mapping"):
        raise InvalidArtefact(
            f"{origin} names Python code to import (auto_mapping); expected null, as PEFT writes "
            f"for {task_type}."
        )
    _check_tokenizer_options(config, origin)


def _check_tokenizer_options(config: Mapping[str, Any], origin: str) -> None:
    options = config.get("tokenizer_kwargs") or {}
    if not isinstance(options, dict) or options.get("trust_remote_code"):
        raise InvalidArtefact(
            f"{origin} says tokenizer_kwargs {quoted(options)}; expected options without "
            "trust_remote_code: an adapter never decides that code is run."
        )


def _check_shape(config: Mapping[str, Any], rows: int, width: int, origin: str) -> None:
    count, declared = config.get("num_virtual_tokens"), config.get("token_dim")
    if not _is_count(count, MAX_VIRTUAL_TOKENS):
        raise InvalidArtefact(
            f"{CONFIG} of {origin} says num_virtual_tokens {quoted(count)}; expected a whole "
            f"number from 1 to {MAX_VIRTUAL_TOKENS}."
        )
    submodules = _submodules(config, origin)
    expected = int(count) * submodules
    if rows != expected:
        raise InvalidArtefact(
            f"{WEIGHTS} of {origin} has {rows} rows; expected {expected}, as {CONFIG} says "
            f"{count} virtual tokens for {submodules} submodule(s)."
        )
    if declared is not None and not (_is_count(declared, MAX_HIDDEN_SIZE) and declared == width):
        raise InvalidArtefact(
            f"{WEIGHTS} of {origin} has rows of {width} numbers; expected {quoted(declared)}, as "
            f"{CONFIG} says in token_dim."
        )


def _submodules(config: Mapping[str, Any], origin: str) -> int:
    """Return how many prompts of P rows the tensor stacks; PEFT's default is 2 for seq2seq."""
    allowed = (1, 2) if config["task_type"] == "SEQ_2_SEQ_LM" else (1,)
    submodules = config.get("num_transformer_submodules")
    if submodules is None:
        return allowed[-1]
    if not _is_count(submodules, 2) or submodules not in allowed:
        raise InvalidArtefact(
            f"{CONFIG} of {origin} says num_transformer_submodules {quoted(submodules)}; expected "
            f"{' or '.join(map(str, allowed))} for {config['task_type']}."
        )
    return submodules


def _read_manifest(files: Mapping[str, bytes], origin: str) -> Manifest | None:
    try:
        return Manifest.from_bytes(files[MANIFEST]) if MANIFEST in files else None
    except InvalidArtefact as error:
        raise InvalidArtefact(f"{origin}: {error}") from None


def _check_agreement(
    manifest: Manifest,
    config: Mapping[str, Any],
    files: Mapping[str, bytes],
    width: int,
    origin: str,
) -> None:
    """Check that the manifest speaks of these very files and of the same base."""
    for name in REQUIRED:
        found, expected = layout.sha256_of(files[name]), manifest.files.get(name)
        if found != expected:
            raise InvalidArtefact(
                f"{name} of {origin} has the SHA-256 {found}; {MANIFEST} expects {expected}. "
                "The file was changed or damaged: pull or save the adapter again."
            )
    pairs = {
        "num_virtual_tokens": (config["num_virtual_tokens"], manifest.num_virtual_tokens),
        "hidden_size": (width, manifest.hidden_size),
        "task_type": (config["task_type"], manifest.task_type),
        "base_model": (config.get("base_model_name_or_path") or UNKNOWN_BASE, manifest.base_model),
    }
    for field, (stored, declared) in pairs.items():
        if stored != declared:
            raise InvalidArtefact(
                f"{origin} contradicts itself about {field}: {CONFIG} and weights say "
                f"{quoted(stored)}, {MANIFEST} says {quoted(declared)}."
            )


def _check_card(data: bytes, origin: str) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArtefact(f"{CARD} of {origin}: byte {error.start} is not UTF-8.") from None
    found = _CARD_CONTROL.search(text)
    if found:
        raise InvalidArtefact(
            f"{CARD} of {origin} holds the control character {found.group()!a}; expected text."
        )


def _split_weights(data: bytes, origin: str) -> tuple[dict[str, Any], bytes]:
    if len(data) < _LENGTH_BYTES:
        raise InvalidArtefact(f"{origin} has {len(data)} bytes; expected a safetensors file.")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    available = min(len(data) - _LENGTH_BYTES, _MAX_HEADER)
    if length > available:
        raise InvalidArtefact(
            f"{origin} declares a header of {length} bytes; expected at most {available}."
        )
    end = _LENGTH_BYTES + length
    if data[_LENGTH_BYTES:end][:1] != b"{":
        raise InvalidArtefact(f"The header of {origin} does not begin with '{{'.")
    return parse_object(data[_LENGTH_BYTES:end], origin=f"The header of {origin}"), data[end:]


def _names(header: Mapping[str, Any]) -> str:
    names = sorted(header)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(quoted(name) for name in names[:3]) + more if names else "no tensor"


def _check_tensor(entry: object, body_bytes: int, origin: str) -> tuple[str, tuple[int, int]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InvalidArtefact(
            f"{origin} describes its tensor as {quoted(entry)}; expected dtype, shape and "
            "data_offsets."
        )
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise UnsupportedAdapter(
            f"{origin} has dtype {quoted(dtype)}; expected {', '.join(_ITEM_BYTES)}. "
            "Convert it: `.to(torch.float32)`, then save it again."
        )
    rows, width = _matrix(shape, origin)
    expected = [0, rows * width * _ITEM_BYTES[dtype]]
    if not _equals(entry["data_offsets"], expected) or body_bytes != expected[1]:
        raise InvalidArtefact(
            f"{origin} has {body_bytes} bytes of data at {quoted(entry['data_offsets'])}; expected "
            f"{expected[1]} at {expected} for shape {[rows, width]} in {dtype}."
        )
    return dtype, (rows, width)


def _matrix(shape: object, origin: str) -> tuple[int, int]:
    if isinstance(shape, list) and len(shape) == 2:
        rows, width = shape
        if _is_count(rows, 2 * MAX_VIRTUAL_TOKENS) and _is_count(width, MAX_HIDDEN_SIZE):
            return rows, width
    raise InvalidArtefact(
        f"{origin} has shape {quoted(shape)}; expected [virtual tokens, hidden size], two whole "
        f"numbers up to {2 * MAX_VIRTUAL_TOKENS} and {MAX_HIDDEN_SIZE}."
    )


def _equals(found: object, expected: list[int]) -> bool:
    """Compare whole numbers, where True is not 1 and 0.0 is not 0."""
    return isinstance(found, list) and found == expected and {*map(type, found)} == {int}


def _is_count(value: object, limit: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= limit


def _check_finite(dtype: str, body: bytes, origin: str) -> None:
    import numpy as np

    words = np.frombuffer(body, dtype="<u4" if dtype == "F32" else "<u2")
    bad = np.flatnonzero((words & _EXPONENT[dtype]) == _EXPONENT[dtype])
    if bad.size:
        raise InvalidArtefact(
            f"{origin} holds {bad.size} numbers that are NaN or infinite, the first at position "
            f"{bad[0]}; expected finite numbers. Training went wrong, or the file is damaged."
        )
