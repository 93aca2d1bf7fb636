"""Facts and figures as one HTML file, which holds all that it needs: plotly.js, pictures, numbers.

The page may be opened from a disk without a network: its policy lets the browser load nothing at all.
Every number that it shows is in the facts that it carries as JSON (the element `facts`).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from search.report import wording
from search.report.effects import FEWEST
from search.report.facts import Facts
from search.report.figure import Figure
from search.report.photos import GROUPS, Gallery
from trashseg.files import write_text

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
TEMPLATE = "page.html.jinja"


def write_page(
    path: Path, facts: Facts, figures: Mapping[str, Figure], gallery: Gallery | None, problem: str
) -> None:
    """`problem` says why there are no photos, where there should be some."""
    write_text(path, render(facts, figures, gallery, problem))


def render(
    facts: Facts, figures: Mapping[str, Figure], gallery: Gallery | None, problem: str
) -> str:
    environment = Environment(
        loader=PackageLoader("search.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template(TEMPLATE)
    return template.render(
        facts=facts,
        figures=figures,
        gallery=gallery,
        problem=problem,
        groups=GROUPS,
        words=wording,
        fewest=FEWEST,
        policy=POLICY,
        style=Markup(read("page.css")),
        script=Markup(read("page.js")),
        plotly=Markup(plotly_js()),
        figures_json=embedded({name: figure.spec for name, figure in figures.items()}),
        facts_json=embedded({**asdict(facts), "photos": listed(gallery)}),
    )


def listed(gallery: Gallery | None) -> Any:
    """Every photo's scores, and which are shown; without their pictures."""
    if gallery is None:
        return None
    return {"photos": [asdict(photo) for photo in gallery.photos], "groups": gallery.groups}


def embedded(tree: Any) -> Markup:
    """JSON for a script element: no text in it can end the element."""
    text = json.dumps(tree, allow_nan=False).replace("<", "\\u003c")
    return Markup(text)


def read(file: str) -> str:
    return files("search.report").joinpath(file).read_text(encoding="utf-8")


def plotly_js() -> str:
    """What the plotly package itself draws with."""
    return files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
