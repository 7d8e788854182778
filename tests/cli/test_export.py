"""export: the formats, and what is missing."""

from pathlib import Path

import numpy as np

from softhub.model.prompt import SoftPrompt
from tests.command import Command


def test_npy_needs_no_base(softhub: Command, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "prompt.npy"
    done = softhub("export", adapter, "--to", "npy", "-o", out)
    assert (done.code, done.out) == (0, f"{out}\n"), done.err
    assert np.array_equal(np.load(out), SoftPrompt.from_pretrained(adapter).vectors.numpy())


def test_a_cartridge_of_an_adapter_on_the_hub(
    softhub: Command, adapter: Path, base: Path, tmp_path: Path
) -> None:
    softhub("push", adapter, "me/mood")
    out = tmp_path / "cartridge"
    done = softhub("export", "me/mood", "--to", "cartridge", "--base", base, "-o", out)
    assert (done.code, done.out) == (0, f"{out}\n"), done.err
    names = {path.name for path in out.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "README.md"}


def test_a_cartridge_without_a_base_is_a_usage_error(
    softhub: Command, adapter: Path, tmp_path: Path
) -> None:
    done = softhub("export", adapter, "--to", "cartridge", "-o", tmp_path / "out")
    assert done.code == 2
    assert "give --base MODEL" in done.err


def test_the_exported_adapter_itself_is_not_replaced(softhub: Command, adapter: Path) -> None:
    cartridge = ("export", adapter, "--to", "cartridge", "--base", "unused", "-o")
    done = softhub(*cartridge, adapter)
    assert (done.code, done.out) == (1, "")
    assert f"{adapter} contains an adapter that is not a cartridge" in done.err
    softhub("push", adapter, "me/mood")
    own = softhub("pull", "me/mood").out.strip()
    assert "hub's own copy" in softhub(*cartridge, own).err
    assert "must end in .npy" in softhub("export", adapter, "--to", "npy", "-o", "thesis.md").err


def test_an_unknown_format_is_a_usage_error(
    softhub: Command, adapter: Path, tmp_path: Path
) -> None:
    done = softhub("export", adapter, "--to", "gguf", "-o", tmp_path / "out")
    assert done.code == 2
    assert "gguf" in done.err and "cartridge" in done.err
