"""Export a prompt to formats of other libraries: PEFT's CARTRIDGE and numpy's `.npy`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from softhub._version import __version__
from softhub.adapter import layout
from softhub.adapter.manifest import PrefixShape
from softhub.adapter.portable import UNKNOWN_BASE
from softhub.errors import BaseModelError, ConfigError, IncompatiblePrompt, InvalidAdapter
from softhub.files import replace_file
from softhub.model.prefix import prefix_shape, vectors_of_prompt
from softhub.model.prompt import SoftPrompt

if TYPE_CHECKING:
    from softhub.model.base import BaseModel

_CARD = """\
---
library_name: peft
{base_model}tags:
- cartridge
- softhub
---
# Keys and values of a soft prompt

A soft prompt of {tokens} virtual tokens for {base}, as a CARTRIDGE adapter of PEFT: the keys and
values that the prompt has in every layer. It gives the same answers as the prompt, and
`PeftModel.generate` handles batches that are padded on the left correctly.

Exported with softhub {version} from a prompt whose vectors have the SHA-256 `{digest}`.
"""


def export_npy(prompt: SoftPrompt, path: str | Path) -> Path:
    """Write a prompt's vectors as a float32 matrix that `numpy.load` reads.

    It is `[P, H]`, or of a prefix `[P, width]`, see `PrefixShape`.

    Args:
        prompt: The prompt.
        path: Where to write, with the ending .npy; an existing file is replaced.

    Returns:
        The path.

    Raises:
        ConfigError: The path has another ending.
        InvalidAdapter: The path is inside a hub.
    """
    import numpy as np

    path = Path(path)
    if path.suffix.lower() != ".npy":
        raise ConfigError(f"{path} must end in .npy, such as {path}.npy.")
    layout.check_not_in_hub(path)
    data = io.BytesIO()
    np.save(data, prompt.vectors.numpy(), allow_pickle=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data.getvalue())
    return path


def export_cartridge(prompt: SoftPrompt, base: BaseModel, folder: str | Path) -> Path:
    """Write a prompt's keys and values as a CARTRIDGE adapter, which plain PEFT loads.

    PEFT puts the vectors of a soft prompt before the pads of a left-padded batch, which changes the
    answers. Keys and values come before the whole batch with their own positions, so its answers
    are those of each row alone. They take many times the bytes of the vectors. A prefix is keys and
    values already, and PEFT answers with its `PREFIX_TUNING` adapter in the same way.

    Args:
        prompt: The prompt.
        base: The base model that it was made for.
        folder: Where to write; an existing cartridge is replaced.

    Returns:
        The folder.

    Raises:
        IncompatiblePrompt: The prompt was made for another base, or keys and values of the base
            depend on more than the prompt.
        InvalidAdapter: The folder contains other files or another adapter, or belongs to a hub.
    """
    from safetensors.torch import save

    check_cartridge_folder(Path(folder))
    prompt.check_fits(base)
    try:
        shape = prefix_shape(base)
    except BaseModelError as error:
        raise IncompatiblePrompt(
            f"A prompt cannot be exported as a cartridge for this base: {error}"
        ) from error
    is_prefix = prompt.manifest.prefix is not None
    vectors = prompt.vectors if is_prefix else vectors_of_prompt(base, prompt.vectors)  # [P, width]
    files = {
        layout.CONFIG: _config_bytes(prompt, shape),
        layout.WEIGHTS: save({layout.WEIGHTS_KEY: vectors}, metadata={"format": "pt"}),
        layout.CARD: _card_bytes(prompt),
    }
    return layout.write_atomically(Path(folder), files)


def check_cartridge_folder(folder: Path) -> None:
    """Check that no adapter of another kind, such as the exported one itself, would be replaced.

    Raises:
        InvalidAdapter: It would, or the folder belongs to a hub.
    """
    layout.check_not_in_hub(folder)
    config = folder / layout.CONFIG
    is_adapter = (folder / layout.MANIFEST).exists() or (
        config.exists()
        and b'"CARTRIDGE"' not in layout.read_regular(config, most=layout.MAX_BYTES[layout.CONFIG])
    )
    if is_adapter:
        raise InvalidAdapter(
            f"{folder} contains an adapter that is not a cartridge and would be lost; expected a "
            "new folder or a cartridge. Choose another folder."
        )


def _config_bytes(prompt: SoftPrompt, shape: PrefixShape) -> bytes:
    from peft import CartridgeConfig

    manifest = prompt.manifest
    config = CartridgeConfig(
        task_type=manifest.task_type,
        base_model_name_or_path=_base_name(prompt),
        revision=manifest.base_revision,
        inference_mode=True,
        num_virtual_tokens=manifest.num_virtual_tokens,
        num_layers=shape.num_layers,
        num_attention_heads=shape.num_key_value_heads,
        token_dim=shape.layer_width,
        num_transformer_submodules=1,
    )
    return (json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n").encode()


def _base_name(prompt: SoftPrompt) -> str | None:
    name = prompt.manifest.base_model
    return None if name == UNKNOWN_BASE else name


def _card_bytes(prompt: SoftPrompt) -> bytes:
    base = _base_name(prompt)
    digest = layout.sha256_of(prompt.vectors.numpy().tobytes())
    text = _CARD.format(
        base_model=f"base_model: {base}\n" if base else "",
        base=base or "a base model without a name",
        tokens=prompt.num_virtual_tokens,
        version=__version__,
        digest=digest,
    )
    return text.encode()
