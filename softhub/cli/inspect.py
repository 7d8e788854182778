"""`softhub inspect`: a prompt beside its base's vocabulary, and beside other prompts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softhub.cli.options import (
    AdapterArgument,
    HubOption,
    JsonOption,
    RevisionOption,
    adapter_folder,
)
from softhub.cli.output import emit, emit_json, emit_table, quiet_libraries, say
from softhub.cli.predict import BaseOption, DeviceMapOption, ForceOption
from softhub.errors import ConfigError

if TYPE_CHECKING:
    from softhub.evaluation.inspection import Inspection, VirtualToken

_SHOWN = 3


def inspect(
    adapter: AdapterArgument,
    *,
    base: BaseOption,
    compare: Annotated[
        list[str] | None,
        typer.Option(metavar="REPO_OR_FOLDER", help="Another prompt of that base; repeatable."),
    ] = None,
    neighbours: Annotated[
        int, typer.Option(min=1, help="Nearest tokens of each virtual token.")
    ] = 5,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a picture: norms, neighbours.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the picture and tables.")
    ] = None,
    revision: RevisionOption = None,
    hub: HubOption = None,
    device_map: DeviceMapOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Look at a prompt from outside: nearest tokens, norms, likeness.

    Neighbours explain little: prompts that do a task equally well may lie next to any words.
    """
    folder = adapter_folder(adapter, hub=hub, revision=revision)
    others = {name: adapter_folder(name, hub=hub, revision=None) for name in compare or ()}
    quiet_libraries()
    from softhub.evaluation.inspection import CAVEAT, inspect_prompt
    from softhub.model.base import load_base
    from softhub.model.prompt import SoftPrompt

    found = inspect_prompt(
        SoftPrompt.from_pretrained(folder),
        load_base(base, device_map=device_map),
        compare={name: SoftPrompt.from_pretrained(other) for name, other in others.items()},
        neighbors=neighbours,
        force=force,
    )
    for path in _write(found, adapter, png, html):
        say(f"wrote {path}")
    if as_json:
        emit_json(found.to_record())
        return
    _show(found)
    say(f"note: {CAVEAT}")


def _write(found: "Inspection", name: str, png: Path | None, html: Path | None) -> list[Path]:
    contents: dict[Path, bytes] = {}
    if png is not None or html is not None:
        from softhub.evaluation.inspection_page import draw, render_page
        from softhub.plotting import to_png

        if png is not None:
            contents[png] = to_png(draw(found))
        if html is not None:
            contents[html] = render_page(found, name=name).encode()
    for path, content in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise ConfigError(f"cannot write {str(path)!r}: {error.strerror}") from error
    return [*contents]


def _start(token: "VirtualToken") -> str:
    """Where a vector came from, and how far it has gone."""
    start = token.start
    return f"{start.token!r}, {start.distance:.2f} away" if start else ""


def _show(found: "Inspection") -> None:
    from softhub.evaluation.inspection_page import nearest_in_words

    vocabulary = found.vocabulary
    emit(
        f"{found.base}: {vocabulary.size:,} tokens; 90 % of their norms from "
        f"{vocabulary.norms[0.05]:.2f} to {vocabulary.norms[0.95]:.2f}; a token's cosine with its "
        f"nearest other is {vocabulary.nearest_cosine[0.5]:.2f} (median)\n"
    )
    emit_table(
        ("token", "norm", "longer than", "nearest by cosine", "nearest by distance", "start"),
        [
            (
                str(index),
                f"{token.norm:.2f}",
                f"{token.norm_rank:.0%}",
                nearest_in_words(token.by_cosine[:_SHOWN]),
                nearest_in_words(token.by_distance[:_SHOWN], cosine=False),
                _start(token),
            )
            for index, token in enumerate(found.tokens)
        ],
    )
    if found.others:
        emit("")
        emit_table(
            ("prompt", "similarity", "distance", "training began there"),
            [
                (
                    other.name,
                    f"{other.similarity:.3f}",
                    "" if other.distance is None else f"{other.distance:.0%}",
                    "yes" if other.is_parent else "",
                )
                for other in found.others
            ],
        )
