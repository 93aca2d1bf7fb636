"""The doctor's report as one HTML file: pictures are inside, and nothing is asked of any server."""

import base64
from collections.abc import Iterator
from html import escape
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trashseg.data.balance import Balance
from trashseg.data.coco import Annotation, Photo, read_photo
from trashseg.data.doctor import Report
from trashseg.data.findings import Case, Finding
from trashseg.data.segmentation import decode
from trashseg.errors import DataError
from trashseg.files import write_text

SHOWN_CASES = 24  # with pictures; the ids of all are listed
HEIGHT = 160  # of a picture, in pixels
LEAST_VIEW = 48  # pixels of the photo around an object, a side
QUALITY = 82
OUTLINE = (255, 0, 200)

Image = NDArray[np.uint8]

STYLE = """
:root { color-scheme: light dark; --line: #8884; --error: #c62828; --warning: #b26a00; --ok: #2e7d32 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1240px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin: 0 }
section { border-top: 1px solid var(--line); padding: 1rem 0 }
.badge { color: #fff; border-radius: 3px; padding: 1px 7px; font-size: .8rem; margin-right: .5rem }
.error { background: var(--error) } .warning { background: var(--warning) } .ok { background: var(--ok) }
.count { font-weight: normal; opacity: .7 } p { margin: .3rem 0 }
.cases { display: flex; flex-wrap: wrap; gap: .8rem; margin: .7rem 0 }
figure { margin: 0; max-width: 340px } figcaption { font-size: .8rem; overflow-wrap: anywhere }
figure img { height: 160px; max-width: 340px; object-fit: contain; margin-right: 3px }
details { font-size: .85rem; overflow-wrap: anywhere } summary { cursor: pointer }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: .8rem; margin-top: .7rem }
td, th { text-align: right; padding: 2px 6px; border-bottom: 1px solid var(--line) }
td:first-child, th:first-child { text-align: left } td.none { color: var(--error); font-weight: bold }
tr.folds th { text-align: center; border-left: 1px solid var(--line) }
"""
# Should a name in the json ever get through as markup, the browser still loads nothing for it.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(path: Path, report: Report) -> None:
    """Write the report with thumbnails; photos that cannot be read have none."""
    write_text(path, "\n".join(_page(report)))


def _page(report: Report) -> Iterator[str]:
    dataset = report.listing.dataset
    title = f"data check: {escape(str(dataset.root))}"
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
    objects = sum(len(photo.annotations) for photo in dataset.photos)
    yield f"<p>{len(dataset.photos)} photos, {objects} objects, {len(dataset.classes) - 1} classes</p>"
    badge = "error" if report.errors else "ok"
    yield f'<p><span class="badge {badge}">{report.errors} errors</span>'
    yield f'<span class="badge warning">{report.warnings} warnings</span></p>'
    for finding in report.findings:
        yield from _section(report, finding)
    yield from _balance(report.balance)
    yield "</body></html>"


def _section(report: Report, finding: Finding) -> Iterator[str]:
    kind, count = finding.kind, len(finding.cases)
    yield f'<section id="{finding.name}"><h2><span class="badge {kind.severity}">{kind.severity}'
    yield f'</span>{escape(kind.title)} <span class="count">({count})</span></h2>'
    yield f'<p>{escape(kind.advice)}</p><div class="cases">'
    for case in finding.cases[:SHOWN_CASES]:
        yield _figure(report, case, kind.about)
    yield "</div>"
    if count > SHOWN_CASES:
        yield f"<details><summary>{SHOWN_CASES} of {count} are shown; the ids of all</summary>"
        yield f"{escape(', '.join(finding.ids))}</details>"
    yield "</section>"


def _figure(report: Report, case: Case, about: str) -> str:
    photos = report.listing.dataset.photos
    pictures = "".join(_picture(photos[place], case.annotation) for place in case.photos[:4])
    caption = f"{about} {', '.join(case.ids)}" + (f": {case.detail}" if case.detail else "")
    return f"<figure>{pictures}<figcaption>{escape(caption)}</figcaption></figure>"


def _balance(balance: Balance) -> Iterator[str]:
    """One row a class: objects, photos and pixels, over all and in each fold."""
    folds = range(len(balance.photos)) if len(balance.photos) > 1 else ()
    yield '<section id="balance"><h2>Classes</h2>'
    yield f"<p>Objects, photos and share of pixels{', over all and in each fold' * bool(folds)}.</p>"
    yield '<div class="scroll"><table><tr class="folds"><th></th><th colspan="3">all</th>'
    yield "".join(f'<th colspan="3">fold {fold}</th>' for fold in folds)
    headings = "<th>objects</th><th>photos</th><th>pixels</th>"
    yield f"</tr><tr><th>class</th>{headings * (1 + len(folds))}</tr>"
    tables = (balance.objects, balance.photos, balance.pixels)
    for index, name in enumerate(balance.classes):
        yield f"<tr><td>{escape(name)}</td>"
        yield from _cells(index, *(table.sum(axis=0) for table in tables))
        for fold in folds:
            yield from _cells(index, *(table[fold] for table in tables))
        yield "</tr>"
    yield "</table></div></section>"


def _cells(
    index: int, objects: NDArray[np.int64], photos: NDArray[np.int64], pixels: NDArray[np.int64]
) -> Iterator[str]:
    share = pixels[index] / max(1, int(pixels.sum()))
    none = ' class="none"' if index > 0 and photos[index] == 0 else ""
    yield f"<td>{objects[index]}</td><td{none}>{photos[index]}</td><td>{share:.2%}</td>"


# --- pictures ----------------------------------------------------------------------------------


def _picture(photo: Photo, annotation: Annotation | None) -> str:
    try:
        image = read_photo(photo.path)
    except DataError:
        return ""  # that it cannot be read is a finding of its own
    outline = None if annotation is None else _pixels(photo, image, annotation)
    if outline is not None:
        image = _around(image, outline)
    scale = HEIGHT / image.shape[0]
    width = max(1, min(4 * HEIGHT, round(image.shape[1] * scale)))
    shown = cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )[1]
    data = base64.b64encode(encoded.tobytes()).decode()
    return f'<img alt="{escape(photo.file_name)}" src="data:image/jpeg;base64,{data}">'


def _pixels(photo: Photo, image: Image, annotation: Annotation) -> NDArray[np.bool_] | None:
    """What the object covers; None where it cannot be drawn on this photo, or covers nothing."""
    if image.shape[:2] != (photo.height, photo.width):
        return None
    try:
        pixels = decode(annotation.segmentation, photo.height, photo.width)
    except (ValueError, TypeError):
        return None  # that it cannot be drawn is the finding
    return pixels if pixels.any() else None


def _around(image: Image, pixels: NDArray[np.bool_]) -> Image:
    """A square of three times the object's size around it, enlarged, with the object outlined."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    half = max(3 * int(np.ptp(rows)), 3 * int(np.ptp(columns)), LEAST_VIEW) // 2
    window = tuple(
        slice(max(0, int(places[[0, -1]].mean()) - half), int(places[[0, -1]].mean()) + half)
        for places in (rows, columns)
    )
    scale = max(1, -(-2 * HEIGHT // image[window].shape[0]))  # a thin line, whatever the size
    view, mask = (
        np.repeat(np.repeat(part, scale, axis=0), scale, axis=1)
        for part in (image[window], pixels[window].astype(np.uint8))
    )
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(view, contours, -1, OUTLINE, max(1, view.shape[0] // HEIGHT))
    return np.asarray(view, dtype=np.uint8)
