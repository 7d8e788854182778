"""The picture of an inspection: a figure, and a page that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import jinja2

import softhub
from softhub.evaluation.inspection import CAVEAT, Inspection, Neighbour
from softhub.plotting import INK, method_style, style, to_data_uri, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOW, _MIDDLE, _HIGH = 0.05, 0.5, 0.95


def draw(inspection: Inspection) -> Figure:
    """Draw norms and nearest tokens beside the vocabulary's own, and the prompt beside itself.

    Args:
        inspection: What was found.

    Returns:
        A figure; `softhub.plotting` turns it into PNG and SVG.
    """
    from matplotlib.figure import Figure

    vocabulary = inspection.vocabulary
    with style():
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        norms, nearest, likeness = figure.subplots(1, 3, width_ratios=[4, 4, 3])
        _beside_vocabulary(norms, [token.norm for token in inspection.tokens], vocabulary.norms)
        norms.set_title("Norm")
        cosines = [token.by_cosine[0].cosine for token in inspection.tokens]
        _beside_vocabulary(nearest, cosines, vocabulary.nearest_cosine)
        nearest.set_title("Cosine with the nearest token")
        _heat(likeness, inspection.similarity)
        likeness.set_title("Cosine with each other")
    return figure


def render_page(inspection: Inspection, *, name: str) -> str:
    """Return the inspection as one HTML file: nothing is loaded, nothing is run.

    Args:
        inspection: What was found.
        name: What the prompt is called.
    """
    description = "Norm and nearest token of each virtual token, and their cosines."
    return _template().render(
        name=name,
        inspection=inspection,
        caveat=CAVEAT,
        picture=to_data_uri(to_svg(draw(inspection), description)),
        description=description,
        nearest=nearest_in_words,
        version=softhub.__version__,
    )


def nearest_in_words(neighbours: Sequence[Neighbour], *, cosine: bool = True) -> str:
    """Return neighbours as a line of text: each token quoted, with its cosine or distance.

    Args:
        neighbours: Nearest first.
        cosine: Whether to give the cosine rather than the distance.
    """
    values = (item.cosine if cosine else item.distance for item in neighbours)
    return ", ".join(
        f"{item.token!r} {value:.2f}" for item, value in zip(neighbours, values, strict=True)
    )


def _beside_vocabulary(
    axes: Axes, values: Sequence[float], quantiles: Mapping[float, float]
) -> None:
    """Dots of the virtual tokens over the band in which most of the vocabulary lies."""
    from matplotlib.ticker import MaxNLocator

    band = method_style("full fine-tuning").color
    axes.axhspan(quantiles[_LOW], quantiles[_HIGH], color=band, alpha=0.15, linewidth=0)
    axes.axhline(quantiles[_MIDDLE], color=band, linewidth=1)
    axes.plot(
        range(len(values)),
        values,
        linestyle="none",
        marker="o",
        markersize=4,
        color=method_style("soft prompt").color,
    )
    axes.set_ylim(bottom=min(0, *values))
    axes.set_xlabel("virtual token (band: 90 % of the vocabulary)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _heat(axes: Axes, cosines: Sequence[Sequence[float]]) -> None:
    from matplotlib.ticker import MaxNLocator

    image = axes.imshow(cosines, vmin=-1, vmax=1, cmap="PuOr", interpolation="nearest")
    axes.grid(visible=False)
    axes.set_xlabel("virtual token")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.9)
    bar.outline.set_edgecolor(INK)


@cache
def _template() -> jinja2.Template:
    source = resources.files(softhub).joinpath("portrait.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source)
