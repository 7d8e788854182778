"""Validation of adapters: everything pulled, pushed or loaded is checked here before use.

Nothing is executed and nothing is trusted: sizes are capped before reading, both JSON files and
the safetensors header are parsed strictly, and the parts must agree with each other.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from softhub.adapter.adapter import METHODS, PREFIX_METHODS, Adapter
from softhub.adapter.layout import (
    CARD,
    CONFIG,
    FILES,
    MANIFEST,
    MAX_BYTES,
    PICKLED_WEIGHTS,
    REQUIRED,
    WEIGHTS,
    find_interrupted_save,
    read_regular,
)
from softhub.adapter.manifest import (
    MAX_HIDDEN_SIZE,
    MAX_LAYERS,
    MAX_VIRTUAL_TOKENS,
    TASK_TYPES,
    PrefixShape,
)
from softhub.adapter.portable import UNKNOWN_BASE
from softhub.adapter.strict_json import quoted
from softhub.adapter.weights import is_count
from softhub.errors import InvalidAdapter, UnsupportedAdapter

_CARD_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")

_CONVERSIONS = {
    "P_TUNING": "Load it in PEFT and save `model.get_prompt(batch_size=1)[0]` as a SoftPrompt.",
    "MULTITASK_PROMPT_TUNING": "Load it in PEFT and save `model.get_prompt(batch_size=1, "
    "task_ids=torch.tensor([i]))[0]` of each task i as a SoftPrompt.",
}


def check_folder(folder: str | Path) -> Adapter:
    """Read and check an adapter folder; see `read_folder` and `check_adapter`.

    Args:
        folder: The adapter's folder.

    Returns:
        The adapter, checked.

    Raises:
        InvalidAdapter: The folder is missing, damaged or hostile.
        UnsupportedAdapter: It contains a valid adapter that softhub cannot use.
    """
    return check_files(read_folder(folder), origin=str(folder))


def read_folder(folder: str | Path) -> dict[str, bytes]:
    """Read the files of an adapter, and no others from its folder.

    Args:
        folder: The adapter's folder.

    Returns:
        Contents by name.

    Raises:
        InvalidAdapter: The folder or a required file is missing, a file is too large, is not a
            regular file, or is a link that leads out of the folder (and not into the blobs of
            the download cache that the folder is part of).
        UnsupportedAdapter: The only weights are pickled.
    """
    folder = Path(folder)
    if not _is_present(folder) or not folder.is_dir():
        check_interrupted_save(folder)
        raise InvalidAdapter(f"There is no folder {quoted(str(folder), 300)}: expected an adapter.")
    files = {name: _read_file(folder, name) for name in FILES if _is_present(folder / name)}
    if WEIGHTS not in files and _is_present(folder / PICKLED_WEIGHTS):
        raise _pickled(str(folder))
    return files


def check_interrupted_save(folder: Path) -> None:
    """Check for an interrupted save, and report where the earlier adapter is.

    Raises:
        InvalidAdapter: It was interrupted, and the earlier adapter has a hidden name.
    """
    earlier = find_interrupted_save(folder)
    if earlier and not folder.is_dir():
        raise InvalidAdapter(
            f"There is no folder {quoted(str(folder), 300)}: expected an adapter. Saving was "
            f"interrupted; the earlier adapter is in {earlier}. Rename that folder."
        )


def check_files(files: Mapping[str, bytes], *, origin: str) -> Adapter:
    """Make an adapter of files and check it; see `check_adapter`.

    Args:
        files: Contents by name.
        origin: Where they come from, for messages: a path or `repo_id@revision`.

    Returns:
        The adapter, checked.

    Raises:
        InvalidAdapter: Damaged, hostile or inconsistent; says what was found and expected.
        UnsupportedAdapter: Valid, but not a prompt that softhub can use.
    """
    return check_adapter(Adapter(files, origin))


def check_adapter(adapter: Adapter) -> Adapter:
    """Check each file of an adapter on its own, then that they belong together.

    Args:
        adapter: The adapter.

    Returns:
        The same adapter.

    Raises:
        InvalidAdapter: Damaged, hostile or inconsistent; says what was found and expected.
        UnsupportedAdapter: Valid, but not a prompt that softhub can use; says how to convert it
            where that is possible.
    """
    _check_presence(adapter.files, adapter.origin)
    _check_config(adapter.config, f"{CONFIG} of {adapter.origin}")
    _check_shape(adapter)
    _check_agreement(adapter)
    _check_card(adapter.files.get(CARD, b""), adapter.origin)
    return adapter


def _pickled(origin: str) -> UnsupportedAdapter:
    return UnsupportedAdapter(
        f"{origin} has its weights in {PICKLED_WEIGHTS}, which is pickled: reading it could "
        f"run code. Expected {WEIGHTS}. If you trust its author, load it in PEFT and save it again "
        "with safe_serialization=True."
    )


def _is_present(path: Path) -> bool:
    """Return whether there is an entry of this name; an unreadable one is not missing."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidAdapter(
            f"{quoted(str(path), 300)} cannot be read: {reason}. Check its name and permissions."
        ) from error
    return True


def _read_file(folder: Path, name: str) -> bytes:
    path = folder / name
    _check_link(folder, path)
    try:
        data = read_regular(path, most=MAX_BYTES[name])
    except OSError as error:
        raise InvalidAdapter(f"{path} cannot be read: {error.strerror}.") from error
    _check_size(name, len(data), str(folder))
    return data


def _check_link(folder: Path, path: Path) -> None:
    """Reject a link to a file outside of the adapter's folder."""
    home, target = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    allowed = [home]
    allowed += [parent.parent / "blobs" for parent in home.parents if parent.name == "snapshots"]
    if not any(target.is_relative_to(place) for place in allowed):
        raise InvalidAdapter(
            f"{path} is a link to {quoted(str(target), 300)}, outside of its folder. "
            "Copy the file into the folder if it belongs there."
        )


def _check_presence(files: Mapping[str, bytes], origin: str) -> None:
    if WEIGHTS not in files and PICKLED_WEIGHTS in files:
        raise _pickled(origin)
    for name in files:
        if name not in FILES:
            raise InvalidAdapter(
                f"{origin} contains {quoted(name)}; expected only {', '.join(FILES)}."
            )
    for name in REQUIRED:
        if name not in files:
            raise InvalidAdapter(
                f"{origin} has no {name}; expected an adapter with {' and '.join(REQUIRED)}."
            )
    for name, data in files.items():
        _check_size(name, len(data), origin)


def _check_size(name: str, size: int, origin: str) -> None:
    if size > MAX_BYTES[name]:
        fix = (
            " Use fewer virtual tokens. If PEFT saved the embedding layers of the base model too, "
            "save the adapter again with save_embedding_layers=False."
            if name == WEIGHTS
            else ""
        )
        raise InvalidAdapter(
            f"{name} of {origin} has more than {MAX_BYTES[name]} bytes, the limit for it.{fix}"
        )


def _check_config(config: Mapping[str, Any], origin: str) -> None:
    method, task_type = config.get("peft_type"), config.get("task_type")
    if method not in METHODS:
        conversion = _CONVERSIONS.get(
            str(method), "softhub loads prompt tuning and prefix tuning only; use it in PEFT."
        )
        raise UnsupportedAdapter(
            f"{origin} has peft_type {quoted(method)}; expected one of {', '.join(METHODS)}. "
            f"{conversion}"
        )
    if task_type is None:
        raise UnsupportedAdapter(
            f"{origin} has no task_type, so it is unknown which models the prompt is for. In "
            f"{CONFIG}, set task_type to 'CAUSAL_LM' (decoder-only) or 'SEQ_2_SEQ_LM' "
            "(encoder-decoder)."
        )
    if task_type not in TASK_TYPES:
        raise UnsupportedAdapter(
            f"{origin} has task_type {quoted(task_type)}; expected {' or '.join(TASK_TYPES)}. "
            "A prompt for another task type depends on a head that is not part of it: train a "
            "causal or encoder-decoder model with a verbalizer instead."
        )
    if method in PREFIX_METHODS and task_type != "CAUSAL_LM":
        raise UnsupportedAdapter(
            f"{origin} is a prefix ({method}) with task_type {task_type}; expected CAUSAL_LM. An "
            "encoder-decoder's prefix is in its decoder, where softhub puts no prompt: use it in "
            "PEFT, or train a prompt instead."
        )
    if config.get("modules_to_save"):
        raise UnsupportedAdapter(
            f"{origin} has modules_to_save {quoted(config['modules_to_save'])}; expected none: "
            "the prompt would depend on layers that are not part of it."
        )
    if config.get("auto_mapping"):
        raise InvalidAdapter(
            f"{origin} names Python code to import (auto_mapping); expected null, as PEFT writes "
            f"for {task_type}."
        )
    _check_tokenizer_options(config, origin)


def _check_tokenizer_options(config: Mapping[str, Any], origin: str) -> None:
    options = config.get("tokenizer_kwargs") or {}
    if not isinstance(options, dict):
        raise InvalidAdapter(
            f"{origin} has tokenizer_kwargs {quoted(options)}; expected options by name."
        )
    if _trusts_remote_code(config):
        raise InvalidAdapter(
            f"{origin} sets trust_remote_code (tokenizer_kwargs {quoted(options)}); expected none: "
            "an adapter never decides that code is run."
        )


def _trusts_remote_code(value: Any) -> bool:
    """Return whether an object, or any inside it, requests the execution of remote code."""
    if isinstance(value, Mapping):
        return bool(value.get("trust_remote_code")) or any(map(_trusts_remote_code, value.values()))
    return isinstance(value, list) and any(map(_trusts_remote_code, value))


def _check_shape(adapter: Adapter) -> None:
    config, origin = adapter.config, adapter.origin
    rows, width = adapter.shape
    count, declared = config.get("num_virtual_tokens"), config.get("token_dim")
    if not is_count(count, MAX_VIRTUAL_TOKENS):
        raise InvalidAdapter(
            f"{CONFIG} of {origin} has num_virtual_tokens {quoted(count)}; expected an "
            f"integer from 1 to {MAX_VIRTUAL_TOKENS}."
        )
    submodules = _submodules(config, origin)
    if rows != count * submodules:
        raise InvalidAdapter(
            f"{WEIGHTS} of {origin} has {rows} rows; expected {count * submodules}, as {CONFIG} "
            f"specifies {count} virtual tokens for {submodules} submodule(s)."
        )
    if config["peft_type"] in PREFIX_METHODS:
        _check_prefix_width(config, width, origin)
    elif declared is not None and not (is_count(declared, MAX_HIDDEN_SIZE) and declared == width):
        raise InvalidAdapter(
            f"{WEIGHTS} of {origin} has rows of {width} numbers; expected {quoted(declared)}, "
            f"the token_dim in {CONFIG}."
        )


def _check_prefix_width(config: Mapping[str, Any], width: int, origin: str) -> None:
    """Check that a virtual token has the keys and values of the layers that the config names."""
    limits = {
        "num_layers": MAX_LAYERS,
        "num_attention_heads": MAX_HIDDEN_SIZE,
        "token_dim": MAX_HIDDEN_SIZE,
    }
    for name, limit in limits.items():
        if not is_count(config.get(name), limit):
            raise InvalidAdapter(
                f"{CONFIG} of {origin} has {name} {quoted(config.get(name))}; expected an integer "
                f"from 1 to {limit}, because a prefix has keys and values of every layer."
            )
    heads, layer = config["num_attention_heads"], config["token_dim"]
    if layer % heads:
        raise InvalidAdapter(
            f"{CONFIG} of {origin} has token_dim {layer}; expected a multiple of {heads}, its "
            "num_attention_heads (of keys and values)."
        )
    expected = 2 * config["num_layers"] * layer
    if width != expected:
        raise InvalidAdapter(
            f"{WEIGHTS} of {origin} has rows of {width} numbers; expected {expected}, keys and "
            f"values of {config['num_layers']} layers with the token_dim {layer} in {CONFIG}."
        )


def _submodules(config: Mapping[str, Any], origin: str) -> int:
    """Return how many prompts of P rows the tensor stacks; PEFT's default is 2 for seq2seq."""
    allowed = (1, 2) if config["task_type"] == "SEQ_2_SEQ_LM" else (1,)
    submodules = config.get("num_transformer_submodules")
    if submodules is None:
        return allowed[-1]
    if not is_count(submodules, 2) or submodules not in allowed:
        raise InvalidAdapter(
            f"{CONFIG} of {origin} has num_transformer_submodules {quoted(submodules)}; expected "
            f"{' or '.join(map(str, allowed))} for {config['task_type']}."
        )
    return submodules


def _check_agreement(adapter: Adapter) -> None:
    """Check that the manifest, if there is one, describes these files and the same base."""
    config, origin = adapter.config, adapter.origin
    try:
        manifest = adapter.manifest
    except InvalidAdapter as error:
        raise InvalidAdapter(f"{origin}: {error}") from None
    if manifest is None:
        return
    for name in REQUIRED:
        found, expected = adapter.sha256[name], manifest.files.get(name)
        if found != expected:
            raise InvalidAdapter(
                f"{name} of {origin} has the SHA-256 {found}; {MANIFEST} expects {expected}. "
                "The file was changed or damaged: pull or save the adapter again."
            )
    pairs = {
        "num_virtual_tokens": (config["num_virtual_tokens"], manifest.num_virtual_tokens),
        "hidden_size": (None if adapter.prefix else adapter.shape[1], manifest.hidden_size),
        "prefix": (_record(adapter.prefix), _record(manifest.prefix)),
        "task_type": (config["task_type"], manifest.task_type),
        "base_model": (config.get("base_model_name_or_path") or UNKNOWN_BASE, manifest.base_model),
    }
    for field, (stored, declared) in pairs.items():
        if stored != declared:
            raise InvalidAdapter(
                f"{origin} is inconsistent in {field}: {CONFIG} and weights say "
                f"{quoted(stored)}, {MANIFEST} says {quoted(declared)}."
            )


def _record(prefix: PrefixShape | None) -> dict[str, int] | None:
    return None if prefix is None else asdict(prefix)


def _check_card(data: bytes, origin: str) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidAdapter(f"{CARD} of {origin}: byte {error.start} is not UTF-8.") from None
    found = _CARD_CONTROL.search(text)
    if found:
        raise InvalidAdapter(
            f"{CARD} of {origin} contains the control character {found.group()!a}; expected text."
        )
