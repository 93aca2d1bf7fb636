"""What a page holds, and how it looks in a real browser."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chromium import chromium


def read_embedded(page: str, element: str = "facts") -> Any:
    """The JSON that the page carries."""
    [text] = re.findall(rf'<script type="application/json" id="{element}">(.*?)</script>', page)
    return json.loads(text)


@dataclass(frozen=True)
class Seen:
    messages: list[str]
    """Of the console, of any kind, and uncaught errors."""
    elsewhere: list[str]
    """Requests that would leave the page."""
    drawn: dict[str, bool]
    """By figure: whether it has marks, in a drawing as wide as its place."""
    width: int
    """Pixels that the page takes."""


DRAWN = """
() => Object.fromEntries([...document.querySelectorAll(".plot")].map((plot) => {
  const drawing = plot.querySelector("svg.main-svg");
  const marks = plot.querySelectorAll("svg .trace path, svg .trace text, svg .hm image");
  return [plot.id.replace("figure-", ""),
          Boolean(drawing) && drawing.clientWidth >= plot.clientWidth - 1 && marks.length > 0];
}))
"""


def look_at(page: Path, size: tuple[int, int]) -> Seen:
    messages: list[str] = []
    requests: list[str] = []
    with chromium() as browser:
        view = browser.new_page(viewport={"width": size[0], "height": size[1]})
        view.on("console", lambda message: messages.append(message.text))
        view.on("pageerror", lambda error: messages.append(str(error)))
        view.on("request", lambda request: requests.append(request.url))
        view.goto(page.as_uri(), wait_until="load")
        view.wait_for_timeout(300)
        drawn = view.evaluate(DRAWN)
        width = view.evaluate("document.documentElement.scrollWidth")
    outside = [url for url in requests if not url.startswith(("file:", "data:", "blob:"))]
    return Seen(messages, outside, drawn, width)
