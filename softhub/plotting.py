"""The style of all plots, and their conversion to SVG and PNG.

An SVG has its own style sheet with colors for light and dark, so it can be committed, or shown in a
page with a strict content security policy, as `<img src="data:…">`.

The colors of methods are those of Okabe & Ito, which people with any kind of color vision can
distinguish; their markers differ too.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class MethodStyle:
    """Color and marker of a method, the same in every plot."""

    color: str
    marker: str


_METHOD_STYLES = {
    "zero-shot": MethodStyle("#E69F00", "v"),
    "zero-shot, bias-corrected": MethodStyle("#E69F00", "^"),
    "optimized hard prompt": MethodStyle("#E69F00", "*"),
    "few-shot": MethodStyle("#CC79A7", "h"),
    "soft prompt": MethodStyle("#0072B2", "o"),
    "prefix": MethodStyle("#56B4E9", "X"),
    "soft-prompt ensemble": MethodStyle("#0072B2", "P"),
    "IA3": MethodStyle("#009E73", "p"),
    "LoRA": MethodStyle("#009E73", "s"),
    "full fine-tuning": MethodStyle("#D55E00", "D"),
}
_OTHER_METHOD = MethodStyle("#8c8c8c", "x")
INK = "#010203"  # replaced in SVG by the text color of light or dark mode
_SHEET = (
    "<style>svg{color:#1f2328;background:#fff}"
    "@media (prefers-color-scheme:dark){svg{color:#e6edf3;background:#0d1117}}"
    "text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif!important}"
    "</style>"
)
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_PIXELS_PER_POINT = 1.5
_MARGIN = 0.08  # inches
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "softhub",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # a name may contain dollar signs
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "figure.constrained_layout.w_pad": _MARGIN,
    "figure.constrained_layout.h_pad": _MARGIN,
}


def method_style(method: str) -> MethodStyle:
    """Return the style of a method of a comparison; `few-shot` is any number of shots."""
    return _METHOD_STYLES.get(method, _OTHER_METHOD)


@contextmanager
def style() -> Iterator[None]:
    """Apply the common style to everything that is drawn within this context."""
    import matplotlib

    with matplotlib.rc_context(_SETTINGS):
        yield


def plain_log(axes: Axes) -> None:
    """Label a log scale with plain numbers: 0.5, 1, 2."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def legend_outside(figure: Figure, *of: Axes, below: bool = False) -> None:
    """Add a legend of these axes above or below them, where it covers nothing."""
    found = [axes.get_legend_handles_labels() for axes in of]
    handles = [handle for pair in found for handle in pair[0]]
    labels = [label for pair in found for label in pair[1]]
    place: Literal["outside lower left", "outside upper left"]
    place = "outside lower left" if below else "outside upper left"
    room = figure.bbox.width - 2 * _MARGIN * figure.dpi
    for rows in range(1, len(labels) + 1):  # as few as fit
        legend = figure.legend(handles, labels, loc=place, ncols=-(-len(labels) // rows))
        if rows == len(labels) or legend.get_window_extent().width <= room:
            return
        legend.remove()


def to_png(figure: Figure, *, dpi: int = 200) -> bytes:
    """Return a figure as PNG, on white."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(
            buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None}
        )
    return buffer.getvalue()


def to_svg(figure: Figure, title: str) -> str:
    """Return a figure as SVG, with colors for light and dark mode.

    Args:
        figure: A figure that was drawn within `style()`.
        title: Description of the figure for screen readers.
    """
    buffer = io.StringIO()
    with style():
        metadata = {"Title": title, "Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = _NOT_IN_XML.sub("", buffer.getvalue()).replace(INK, "currentColor")
    start = svg.index("<svg ")
    svg = re.sub(r'(?<==")([\d.]+)pt(?=")', _in_pixels, svg[start:], count=2)  # width and height
    return svg.replace(">", f">{_SHEET}", 1)


def _in_pixels(points: re.Match[str]) -> str:
    return f"{_PIXELS_PER_POINT * float(points[1]):.0f}"


def to_data_uri(svg: str) -> str:
    """Return an SVG as the `src` of an `<img>`, for pages that load nothing."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
