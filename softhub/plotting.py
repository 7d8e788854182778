"""How plots look, and how they become SVG that can stand in any page.

The SVG takes its ink from the page (`currentColor`), so it reads on light and dark. It carries no
styles, which a strict content security policy would refuse, and its ids are its own.

The colours of methods are those of Okabe & Ito, which people with any kind of colour vision tell
apart; their markers differ too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

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
    "few-shot": MethodStyle("#CC79A7", "h"),
    "soft prompt": MethodStyle("#0072B2", "o"),
    "soft-prompt ensemble": MethodStyle("#56B4E9", "P"),
    "LoRA": MethodStyle("#009E73", "s"),
    "full fine-tuning": MethodStyle("#D55E00", "D"),
}
_OTHER_METHOD = MethodStyle("#8c8c8c", "x")
INK = "#010203"  # stands for the page's own colour of text
_FONTS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_PIXELS = 1.5  # of a page for each of a figure's points
_LIGHT, _DARK = ("#1f2328", "#ffffff"), ("#e6edf3", "#0d1117")
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
    "text.parse_math": False,  # names are no formulas
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
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
}


def method_style(method: str) -> MethodStyle:
    """Return the style of a method of a comparison; `few-shot` stands for any number of shots."""
    return _METHOD_STYLES.get(method, _OTHER_METHOD)


@contextmanager
def style() -> Iterator[None]:
    """Draw within this, to have all plots alike."""
    import matplotlib

    with matplotlib.rc_context(_SETTINGS):
        yield


def plain_log(axes: Axes) -> None:
    """Write the numbers of a log scale as they are: 0.5, 1, 2."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def legend_outside(figure: Figure, *of: Axes, below: bool = False) -> None:
    """A legend of these axes above or below them, where it hides nothing."""
    found = [axes.get_legend_handles_labels() for axes in of]
    handles = [handle for pair in found for handle in pair[0]]
    labels = [label for pair in found for label in pair[1]]
    if labels:
        rows = -(-sum(len(label) + 8 for label in labels) // 110)
        place: Literal["outside lower left", "outside upper left"]
        place = "outside lower left" if below else "outside upper left"
        figure.legend(handles, labels, loc=place, ncols=-(-len(labels) // rows))


def to_png(figure: Figure, *, dpi: int = 200) -> bytes:
    """The figure on white, as PNG."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(
            buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None}
        )
    return buffer.getvalue()


def to_svg(figure: Figure, name: str, description: str, *, standalone: bool = False) -> str:
    """The figure as SVG.

    Args:
        figure: What was drawn within `style()`.
        name: Letters that make its ids unlike those of other figures of the page.
        description: What is to be seen, for people who do not see it.
        standalone: For a file of its own, which brings ink and ground for light and dark; else the
            element is to be put into a page.
    """
    root = _parsed(figure)
    for element in root.iter():
        _move_style(element)
    for junk in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(junk)
    width, height = (_PIXELS * float(side) for side in root.attrib["viewBox"].split()[2:])
    root.attrib.update(
        {"width": f"{width:.0f}", "height": f"{height:.0f}", "role": "img", "font-family": _FONTS}
        | {"stroke-linejoin": "round", "stroke-linecap": "butt"}
    )
    title = ElementTree.Element(f"{{{_SVG}}}title")
    title.text = description
    root.insert(0, title)
    if standalone:
        root[1:1] = _own_page()
    text = ElementTree.tostring(root, encoding="unicode")
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    return text.replace(INK, "currentColor") + ("\n" if standalone else "")


def _parsed(figure: Figure) -> ElementTree.Element:
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(_NOT_IN_XML.sub("", buffer.getvalue().decode()))
    for parent in list(root.iter()):
        for sheet in parent.findall(f"{{{_SVG}}}style"):  # its two rules go to the root
            parent.remove(sheet)
    return root


def _move_style(element: ElementTree.Element) -> None:
    """Turn `style="fill: red"` into `fill="red"`."""
    for declaration in element.attrib.pop("style", "").split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            element.attrib.update(_font(value))
        elif name and name != "-inkscape-font-specification":
            element.set(name, value)


def _font(shorthand: str) -> Mapping[str, str]:
    """Size and weight of `bold 10px 'DejaVu Sans', …`; the family is the root's."""
    size = re.search(r"([\d.]+)px", shorthand)
    found = {"font-size": size[1]} if size else {}
    return found | ({"font-weight": "bold"} if re.match(r"\s*(bold|[67]00)\b", shorthand) else {})


def _own_page() -> tuple[ElementTree.Element, ElementTree.Element]:
    """Ink and ground, light or dark by the reader's wish: the page around it may be either."""
    sheet = ElementTree.Element(f"{{{_SVG}}}style")
    sheet.text = (
        f"svg{{color:{_LIGHT[0]}}}.ground{{fill:{_LIGHT[1]}}}"
        "@media (prefers-color-scheme:dark)"
        f"{{svg{{color:{_DARK[0]}}}.ground{{fill:{_DARK[1]}}}}}"
    )
    attributes = {"width": "100%", "height": "100%", "class": "ground"}
    return sheet, ElementTree.Element(f"{{{_SVG}}}rect", attributes)
