"""The page's figures as PNG files, for a paper: drawn by an installed Chromium or Chrome.

`kaleido` (extra "figures") drives the browser. It takes the one that BROWSER_PATH names, or else the
first that it finds; without its sandbox, so that it starts for root and in containers too: all that it
is shown are our own figures. No request leaves the machine: MathJax, which it would fetch, is left out.
"""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from search.report.figure import Figure, Tree, merged
from trashseg.errors import TrashSegError
from trashseg.files import new_folder

WIDTH, SCALE = 1000, 2  # pixels of the layout; of the file for each of them
SECONDS = 300.0  # for one figure, also on a busy machine
INK, GRID = "#1f2328", "#d8dce1"


def check_png() -> None:
    """TrashSegError where figures cannot be drawn: said before anything is written."""
    if find_spec("kaleido") is None:
        raise TrashSegError('--png: needs kaleido: pip install "trashseg[figures]"')
    from choreographer.browsers.chromium import Chromium

    named = os.environ.get("BROWSER_PATH")
    if named and not Path(named).is_file():
        raise TrashSegError(
            f"--png: BROWSER_PATH is {named}: no such file: name Chromium or Chrome"
        )
    if Chromium.find_browser(skip_local=False) is None:
        raise TrashSegError(
            "--png: needs Chromium or Chrome: install one, or name it in BROWSER_PATH"
        )


def write_png(figures: Mapping[str, Figure], folder: Path) -> None:
    """FOLDER/NAME.png of each figure; the folder is replaced as a whole."""
    import kaleido  # type: ignore[import-untyped]

    with new_folder(folder, replace=True) as partial:
        kaleido.write_fig_from_object_sync(
            [
                {
                    "fig": on_paper(figure),
                    "path": partial / f"{name}.png",
                    "opts": {
                        "format": "png", "width": max(WIDTH, figure.least_width),
                        "height": figure.height + 40, "scale": SCALE,
                    },
                }
                for name, figure in figures.items()
            ],
            kopts={"mathjax": False, "timeout": SECONDS},
            cancel_on_error=True,
        )  # fmt: skip


def on_paper(figure: Figure) -> Tree:
    """With its title, on white."""
    axis = {"gridcolor": GRID, "linecolor": GRID}
    return merged(
        figure.spec,
        {
            "layout": {
                "title": {"text": figure.title, "x": 0.01, "font": {"size": 17}},
                "height": figure.height + 40,
                "margin": {"t": 90},
                "paper_bgcolor": "white",
                "plot_bgcolor": "white",
                "font": {"color": INK},
                "xaxis": axis,
                "yaxis": axis,
            }
        },
    )
