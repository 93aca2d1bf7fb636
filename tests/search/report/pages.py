"""What a page holds, and how it looks in a real browser."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((path for path in map(shutil.which, NAMES) if path), None)
NO_BROWSER = "no Chromium or Chrome is installed"


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
    from playwright.sync_api import sync_playwright

    messages: list[str] = []
    requests: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-background-networking"]
        )
        view = browser.new_page(viewport={"width": size[0], "height": size[1]})
        view.on("console", lambda message: messages.append(message.text))
        view.on("pageerror", lambda error: messages.append(str(error)))
        view.on("request", lambda request: requests.append(request.url))
        view.goto(page.as_uri(), wait_until="load")
        view.wait_for_timeout(300)
        drawn = view.evaluate(DRAWN)
        width = view.evaluate("document.documentElement.scrollWidth")
        browser.close()
    outside = [url for url in requests if not url.startswith(("file:", "data:", "blob:"))]
    return Seen(messages, outside, drawn, width)
