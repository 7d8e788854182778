"""An inspection as a figure, and as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import jinja2

import softhub
from softhub.evaluation.inspection import CAVEAT, Inspection, Neighbor
from softhub.plotting import INK, method_style, style, to_data_uri, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOW, _MIDDLE, _HIGH = 0.05, 0.5, 0.95


def draw(inspection: Inspection) -> Figure:
    """Plot norms and nearest tokens against the vocabulary, and similarities within the prompt.

    Args:
        inspection: The inspection.

    Returns:
        A figure; `softhub.plotting` turns it into PNG and SVG.
    """
    from matplotlib.figure import Figure

    vocabulary = inspection.vocabulary
    with style():
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        norms, nearest, similarity = figure.subplots(1, 3, width_ratios=[4, 4, 3])
        lengths = [token.norm for token in inspection.tokens]
        _plot_against_vocabulary(norms, lengths, vocabulary.norms)
        norms.set_title("Norm")
        cosines = [token.by_cosine[0].cosine for token in inspection.tokens]
        _plot_against_vocabulary(nearest, cosines, vocabulary.nearest_cosine)
        nearest.set_title("Cosine similarity to the nearest token")
        _heat(similarity, inspection.similarity)
        similarity.set_title("Cosine similarity to each other")
    return figure


def render_page(inspection: Inspection, *, name: str) -> str:
    """Return the inspection as one HTML file without scripts or external resources.

    Args:
        inspection: The inspection.
        name: Name of the prompt.
    """
    description = "Norm and nearest token of each virtual token, and their cosine similarities."
    return _template().render(
        name=name,
        inspection=inspection,
        caveat=CAVEAT,
        picture=to_data_uri(to_svg(draw(inspection), description)),
        description=description,
        quoted=repr,
        version=softhub.__version__,
    )


def nearest_in_words(neighbors: Sequence[Neighbor]) -> str:
    """Return neighbors, nearest first, as a line of text: each token quoted, with its cosine."""
    return ", ".join(f"{item.token!r} {item.cosine:.2f}" for item in neighbors)


def _plot_against_vocabulary(
    axes: Axes, values: Sequence[float], quantiles: Mapping[float, float]
) -> None:
    """Plot the virtual tokens over the band of 90 % of the vocabulary."""
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
    source = resources.files(__package__).joinpath("inspection_page.html.j2").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source)
