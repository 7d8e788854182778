"""`softhub export`: a prompt in the format of another library."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from softhub.cli.options import (
    AdapterArgument,
    DeviceOption,
    HubOption,
    RevisionOption,
    adapter_folder,
    option,
)
from softhub.cli.output import emit


class Format(str, Enum):
    """What `--to` takes."""

    CARTRIDGE = "cartridge"
    NPY = "npy"


def export(
    adapter: AdapterArgument,
    to: Annotated[Format, option("cartridge (plain PEFT) or npy (numpy).", "FORMAT", "--to")],
    output: Annotated[
        Path, option("Folder of the cartridge, or .npy file.", "PATH", "--output", "-o")
    ],
    base: Annotated[
        str | None,
        option(
            "Base model, for a cartridge: Hugging Face repository, folder or .gguf file.",
            "MODEL",
            "--base",
            envvar="SOFTHUB_BASE",
        ),
    ] = None,
    revision: RevisionOption = None,
    hub: HubOption = None,
    device: DeviceOption = None,
) -> None:
    """Export an adapter to another format and print its path.

    A cartridge holds the keys and values that the prompt has in every layer. Plain PEFT loads it,
    and answers batches that are padded on the left correctly, which it does not with a soft prompt.
    """
    if to is Format.CARTRIDGE and base is None:
        raise typer.BadParameter("a cartridge is computed by the base model: give --base MODEL")
    folder = adapter_folder(adapter, hub=hub, revision=revision)
    from softhub.model.export import check_cartridge_folder, export_cartridge, export_npy
    from softhub.model.loading import load_base
    from softhub.model.prompt import SoftPrompt

    if to is Format.CARTRIDGE:
        check_cartridge_folder(output)  # before the base model is loaded
    prompt = SoftPrompt.from_pretrained(folder)
    if to is Format.CARTRIDGE and base is not None:
        written = export_cartridge(prompt, load_base(base, device_map=device), output)
    else:
        written = export_npy(prompt, output)
    emit(str(written))
