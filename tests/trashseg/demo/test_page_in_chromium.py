"""The page as people use it: the command itself, and a real browser. One server for all tests here."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.chromium import CHROMIUM, NOT_INSTALLED, chromium
from tests.conftest import ROOT
from tests.trashseg.demo.uploads import huge_png, phone_photo, photo

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

SECONDS = 120
WATCH = """
import sys

def watch(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = str(args[1][0])
        if not host.startswith("127.") and host not in ("::1", "localhost"):
            with open({log!r}, "a") as log:
                log.write(f"{{args[1]}}\\n")

sys.addaudithook(watch)
"""


@dataclass(frozen=True)
class Server:
    url: str
    temporary: Path
    """The only place for files that are not kept."""
    working: Path
    """Where the command was started."""
    connections: Path
    """A line for each connection that the server opened to another machine."""


@pytest.fixture(scope="module")
def server(
    untrained: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    temporary, working, hooks = folder / "tmp", folder / "working", folder / "hooks"
    for made in (temporary, working, hooks):
        made.mkdir()
    log = folder / "connections"
    (hooks / "sitecustomize.py").write_text(WATCH.format(log=str(log)))
    process = subprocess.Popen(
        [sys.executable, ROOT / "launch.py", "demo", "--model", untrained, "--port", "0",
         "--samples", sample],
        cwd=working, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": f"{hooks}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line
        yield Server(line.split()[0], temporary, working, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=SECONDS) == 0
        assert list(temporary.rglob("*")) == []
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    if CHROMIUM is None:
        pytest.skip(NOT_INSTALLED)
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser: "Browser", server: Server) -> Iterator[Any]:
    """Opens the page as a user of their own; afterwards nobody has fetched anything from elsewhere or
    seen an error."""
    wrong: list[str] = []
    contexts = []

    def is_error(message: Any) -> bool:
        # the machine itself got or lost an address meanwhile: Chromium then drops what it has open
        return message.type == "error" and "net::ERR_NETWORK_CHANGED" not in message.text

    def open_page(**options: Any) -> "Page":
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        local = (server.url, "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(local) else wrong.append(r.url))
        page.on(
            "response", lambda r: wrong.append(f"{r.status} {r.url}") if r.status >= 400 else None
        )
        page.on("console", lambda m: wrong.append(m.text) if is_error(m) else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(server.url)
        page.wait_for_selector("[data-speak][aria-pressed=true]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def _upload(page: "Page", content: bytes, name: str = "photo.jpg") -> None:
    sent = {"name": name, "mimeType": "image/jpeg", "buffer": content}
    page.set_input_files(".choose input", sent)  # type: ignore[arg-type]


def _overlay(page: "Page") -> Image.Image:
    """The picture that is shown; the page looks at nothing else any more."""
    page.wait_for_selector("html:not(.looking) img.overlay")
    source = page.get_attribute("img.overlay", "src") or ""
    return Image.open(BytesIO(base64.b64decode(source.partition(",")[2])))


def _download(page: "Page", name: str) -> bytes:
    with page.expect_download() as download:
        page.click(f'a[download="{name}"]')
    assert download.value.suggested_filename == name
    return Path(download.value.path()).read_bytes()


def test_a_photo_becomes_an_overlay_with_a_legend_and_two_downloads(
    visit: Any, server: Server
) -> None:
    content = photo()
    page = visit(locale="en-US")
    _upload(page, content)
    assert _overlay(page).size == (90, 60)
    answer = httpx.post(
        f"{server.url}/api/v1/segment", files={"photo": content}, timeout=SECONDS
    ).json()
    names = [name.strip() for name in page.locator(".legend strong").all_inner_texts()]
    assert names == [entry["name"] for entry in answer["classes"]]
    assert len(page.locator(".legend .bar").all()) == len(names) >= 2
    mask = np.asarray(Image.open(BytesIO(_download(page, "mask.png"))))
    counts = {entry["value"]: entry["pixels"] for entry in answer["classes"]}
    assert {value: int((mask == value).sum()) for value in counts} == counts
    coco = json.loads(_download(page, "coco.json"))
    assert [entry["segmentation"] for entry in coco] == [
        entry["segmentation"] for entry in answer["results"]
    ]


def test_a_threshold_of_95_percent_leaves_less_and_the_photo_is_not_chosen_again(
    visit: Any,
) -> None:
    page = visit(locale="en-US")
    _upload(page, photo())
    _overlay(page)
    assert "not sure" not in page.inner_text(".rest")
    page.fill("#threshold", "95")
    page.wait_for_selector(".rest :text('not sure')")
    assert page.inner_text("output").strip() == "95%"


def test_the_crf_is_switched_on_with_the_keyboard(visit: Any) -> None:
    page = visit(locale="en-US")
    _upload(page, photo())
    before = _overlay(page).tobytes()
    switch = page.get_by_role("switch", name="Sharpen the outlines (CRF)")
    assert not switch.is_checked()
    switch.press("Space")
    page.wait_for_selector("html.looking")
    assert _overlay(page).tobytes() != before


def test_the_photo_of_a_phone_comes_back_upright_and_fills_the_width(
    visit: Any, tmp_path: Path
) -> None:
    taken = tmp_path / "IMG_0001.JPG"
    taken.write_bytes(phone_photo())
    assert 12e6 < taken.stat().st_size < 25e6
    page = visit(
        viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, locale="ko-KR"
    )
    assert page.locator(".camera").bounding_box()["y"] < page.locator(".choose").bounding_box()["y"]
    page.set_input_files(".camera input", taken)
    shown = _overlay(page)
    assert shown.size == (1200, 1600)
    rows = np.asarray(shown).mean(axis=(1, 2))
    assert rows[:700].mean() + 50 < rows[900:].mean()
    box = page.locator("img.overlay").bounding_box()
    assert box["width"] > 350
    assert box["height"] == pytest.approx(box["width"] * 4 / 3, abs=2)
    assert page.locator(".legend").bounding_box()["y"] > box["y"] + box["height"]
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize(
    ("locale", "text", "bomb"),
    [
        ("ko-KR", "JPEG, PNG, WebP 사진이 아닙니다", "20000x20000 화소"),
        ("en-US", "not a JPEG, PNG or WebP photo", "20000 x 20000 pixels"),
    ],
)
def test_what_is_refused_is_told_in_the_pages_language_and_the_next_photo_works(
    visit: Any, locale: str, text: str, bomb: str
) -> None:
    page = visit(locale=locale)
    for content, name, said in ((b"I am a text\n", "a.jpg", text), (huge_png(), "b.png", bomb)):
        _upload(page, content, name)
        page.wait_for_selector(f".refusal :text('{said}')")
        assert page.locator(".refusal").count() == 1
    page.click("[data-sample='0']")
    assert _overlay(page).size == (64, 64)


def test_a_file_that_is_too_large_is_refused_without_being_sent(visit: Any, tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(photo() + bytes(26 * 2**20))
    page = visit(locale="en-US")
    sent: list[int] = []
    page.on("request", lambda request: sent.append(len(request.post_data_buffer or b"")))
    page.set_input_files(".choose input", large)
    page.wait_for_selector(".refusal :text('more than 25 MB')")
    assert max(sent) < 10_000


def test_the_language_changes_at_once_and_everywhere(visit: Any) -> None:
    page = visit(locale="en-US")
    page.click("[data-sample='1']")
    _overlay(page)
    page.click("summary")
    in_english = page.inner_text("body")
    assert "사진" not in in_english
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.click("[data-speak=ko]")
    in_korean = page.inner_text("body")
    for foreign in ("Choose", "trash", "photo", "garbage", "municipality"):
        assert foreign in in_english
        assert foreign not in in_korean
    assert page.get_attribute("html", "lang") == "ko"
    assert page.get_attribute("img.overlay", "alt") == "찾은 재질을 색으로 칠한 사진"
    assert page.get_by_role("slider", name="최소 확신도").count() == 1
    assert page.get_by_role("button", name="예시 사진 2").count() == 1
    assert requests == []


def test_five_users_at_once_each_get_their_own_photo(visit: Any) -> None:
    pages = [visit(locale="en-US") for _ in range(5)]
    for number, page in enumerate(pages):
        _upload(page, photo(100 + number, 80, seed=number))
    for number, page in enumerate(pages):
        assert _overlay(page).size == (100 + number, 80)


def test_a_failure_of_the_server_is_told_too_and_the_next_photo_works(visit: Any) -> None:
    page = visit(locale="en-US")
    page.eval_on_selector("[data-sample='1']", "button => { button.dataset.sample = 99; }")
    page.click("[data-sample='99']")  # there are six
    page.wait_for_selector("html:not(.looking) .refusal :text('Something went wrong on our side')")
    page.click("[data-sample='0']")
    assert _overlay(page).size == (64, 64)


def test_nothing_is_kept_and_nobody_else_was_called(server: Server) -> None:
    httpx.post(f"{server.url}/api/v1/segment", files={"photo": photo()}, timeout=SECONDS)
    kept = [path for path in server.temporary.rglob("*") if path.is_file()]
    assert kept == []
    assert list(server.working.rglob("*")) == []
    assert not server.connections.exists(), server.connections.read_text()
