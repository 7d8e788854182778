"""`softhub inspect`: a prompt compared with its base model's vocabulary and with other prompts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softhub.cli.options import (
    AdapterOnBase,
    JsonOption,
    adapter_folder,
    option,
    takes_adapter,
)
from softhub.cli.output import emit, emit_json, emit_table, text_of
from softhub.errors import ConfigError
from softhub.experiments.console import note
from softhub.terminal import phase

if TYPE_CHECKING:
    from softhub.evaluation.inspection import Inspection, VirtualToken

_SHOWN = 3

CompareOption = Annotated[
    list[str] | None, option("Adapter of the same base model to compare; repeatable.", "ADAPTER")
]
NeighborsOption = Annotated[int, typer.Option(min=1, help="Nearest tokens per virtual token.")]
HtmlOption = Annotated[Path | None, option("Write a page with the plot and all tables.", "FILE")]


@takes_adapter
def inspect(
    source: AdapterOnBase,
    *,
    compare: CompareOption = None,
    neighbors: NeighborsOption = 5,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show nearest tokens, norms and similarity of a prompt.

    Nearest tokens explain little: prompts that work equally well may be close to any tokens.
    """
    folder = source.folder()
    others = {name: adapter_folder(name, hub=source.hub, revision=None) for name in compare or ()}
    from softhub.evaluation.inspection import CAVEAT, inspect_prompt, require_embeddings
    from softhub.model.loading import load_base
    from softhub.model.prompt import SoftPrompt

    prompt = SoftPrompt.from_pretrained(folder)
    compared = {name: SoftPrompt.from_pretrained(other) for name, other in others.items()}
    for name, each in {source.adapter: prompt, **compared}.items():
        require_embeddings(each, repr(name))
    with phase(f"Loading {source.base}"):
        base = load_base(source.base, device_map=source.device)
    found = inspect_prompt(
        prompt,
        base,
        compare=compared,
        neighbors=neighbors,
        force=source.force,
    )
    if html is not None:
        from softhub.evaluation.inspection_page import render_page

        _write(html, render_page(found, name=source.adapter))
    if as_json:
        emit_json(found.to_record())
        return
    _show_tokens(found)
    _show_others(found)
    note(f"note: {CAVEAT}")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"Cannot write {str(path)!r}: {error.strerror}.") from error
    note(f"Wrote {path}")


def _show_tokens(found: "Inspection") -> None:
    from softhub.evaluation.inspection_page import nearest_in_words

    vocabulary = found.vocabulary
    emit(
        f"{found.base}: {vocabulary.size:,} tokens; 90 % of their norms are between "
        f"{vocabulary.norms[0.05]:.2f} and {vocabulary.norms[0.95]:.2f}; the median cosine of a "
        f"token with its nearest token is {vocabulary.nearest_cosine[0.5]:.2f}\n"
    )
    rows = [
        (
            str(index),
            f"{token.norm:.2f}",
            f"{token.norm_rank:.0%}",
            nearest_in_words(token.by_cosine[:_SHOWN]),
            _initial_token(token),
        )
        for index, token in enumerate(found.tokens)
    ]
    columns = ("token", "norm", "norm rank", "nearest by cosine", "initialized from")
    emit_table(columns, rows)


def _initial_token(token: "VirtualToken") -> str:
    start = token.start
    return f"{start.token!r}, distance {start.distance:.2f}" if start else ""


def _show_others(found: "Inspection") -> None:
    if found.others:
        emit("")
        columns = ("prompt", "similarity", "distance")
        rows = [
            (other.name, f"{other.similarity:.3f}", text_of(other.distance, ".0%"))
            for other in found.others
        ]
        emit_table(columns, rows)
