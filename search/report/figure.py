"""What all figures share: colours that colour-blind people tell apart, and a layout without clutter.

A figure is a plotly.js specification as plain data: the page draws it with the plotly.js that it holds,
png.py with the same one. Colours of text and grid are the page's, which has a light and a dark dress.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Tree = dict[str, Any]

# Okabe & Ito (2008)
BLUE, ORANGE, GREEN, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7"
GREY = "#8c8c8c"
FAINT = "rgba(140, 140, 140, 0.35)"
WINNER, HAND, FINISHED, STOPPED, FAILED, OPEN = BLUE, ORANGE, SKY, GREY, PURPLE, GREEN
STATES = {"finished": FINISHED, "pruned": STOPPED, "failed": FAILED, "open": OPEN}
NAMES = {
    "finished": "ran to the end",
    "pruned": "stopped early",
    "failed": "failed",
    "open": "open",
}
SHADES = [[0, "#ffffff"], [1, BLUE]]  # the page begins with its own colour
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"


@dataclass(frozen=True)
class Figure:
    """One figure with what stands above and below it."""

    name: str
    """Of its PNG, and of its place on the page."""
    title: str
    note: str
    """How to read it, in a sentence or two."""
    data: Sequence[Tree]
    layout: Mapping[str, Any] = field(default_factory=dict)
    height: int = 420
    """Pixels."""
    least_width: int = 0
    """Pixels below which it is scrolled instead of squeezed."""

    @property
    def spec(self) -> Tree:
        """For plotly.js."""
        return {"data": list(self.data), "layout": merged(base_layout(self.height), self.layout)}


def base_layout(height: int) -> Tree:
    return {
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13},
        "hovermode": "closest",
        "hoverlabel": {"font": {"family": FONT, "size": 13}, "align": "left"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left"},
        "xaxis": {"automargin": True, "zeroline": False, "ticks": "outside", "ticklen": 4},
        "yaxis": {"automargin": True, "zeroline": False, "ticks": "outside", "ticklen": 4},
    }


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Tree:
    """`base` with `changes`, also within its branches."""
    found = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = merged(found[key], value) if both else value
    return found


def titled(text: str, **more: Any) -> Tree:
    """An axis with a title."""
    return {"title": {"text": text, "standoff": 8}, **more}


def upright(at: float, **line: Any) -> Tree:
    """A line over the whole height of the plot."""
    return {
        "type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
        "line": {"color": GREY, "width": 1, "dash": "dot", **line},
    }  # fmt: skip


def rows_height(rows: int, a_row: int = 30, around: int = 110) -> int:
    return around + a_row * max(rows, 2)


def error_bars(down: Sequence[float], up: Sequence[float], colour: str = GREY) -> Tree:
    return {
        "type": "data", "symmetric": False, "array": list(up), "arrayminus": list(down),
        "thickness": 2, "width": 5, "color": colour,
    }  # fmt: skip
