"""The page's HTML. Every text is there in both languages; page.css shows the one that is chosen, so that
changing the language asks nothing of the server."""

import base64
import json
from collections.abc import Sequence
from html import escape
from typing import Any

import cv2

from trashseg.demo.guide import Guide, Language, Text
from trashseg.demo.photos import MAX_BYTES, MEGABYTES, pixel_limit
from trashseg.demo.samples import Sample
from trashseg.demo.segment import Image, Segmented, Segmenter, Share
from trashseg.pictures import encode_mask, overlay, palette

SHOWN_SIDE = 1600
"""Longer side in pixels of the picture on the page; the mask has the photo's own size."""
JPEG_QUALITY = 88


def both(text: Text) -> str:
    """A text as two spans, of which one is shown."""
    return f'<span lang="en">{escape(text.en)}</span><span lang="ko">{escape(text.ko)}</span>'


def attribute(name: str, text: Text, language: Language = "en") -> str:
    """An attribute that page.js changes with the language."""
    spoken = escape(text.say(language))
    return (
        f'{name}="{spoken}" data-{name}-en="{escape(text.en)}" data-{name}-ko="{escape(text.ko)}"'
    )


def data_url(kind: str, content: bytes) -> str:
    """So that nothing has to lie on the server until the browser asks for it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


# --- what is always there ----------------------------------------------------------------------


def header(guide: Guide) -> str:
    page = guide.page
    return f"""
<header>
  <div><h1>{both(page["title"])}</h1><p>{both(page["lead"])}</p></div>
  <div role="group" class="languages" {attribute("aria-label", page["language"])}>
    <button type="button" data-speak="ko" lang="ko">한국어</button>
    <button type="button" data-speak="en" lang="en">English</button>
  </div>
</header>
<noscript>{both(page["noscript"])}</noscript>"""


def picker(guide: Guide, samples: Sequence[Sample]) -> str:
    page = guide.page
    limits = page["limits"].fill(megabytes=MEGABYTES, **pixel_limit())
    return f"""
<div class="drop" data-max-bytes="{MAX_BYTES}">
  <label class="button camera">{CAMERA}{both(page["camera"])}
    <input type="file" accept="image/*" capture="environment"></label>
  <label class="button choose">{PICTURE}{both(page["choose"])}
    <input type="file" accept="image/jpeg,image/png,image/webp"></label>
  <p class="hint or-drop">{both(page["drop"])}</p>
  <p class="hint">{both(limits)}</p>
</div>
{_sample_row(guide, samples) if samples else ""}
<p class="hint privacy">{LOCK}{both(page["privacy"])}</p>"""


def _sample_row(guide: Guide, samples: Sequence[Sample]) -> str:
    buttons = "".join(
        f'<button type="button" data-sample="{index}" '
        f"{attribute('aria-label', guide.page['sample'].fill(number=index + 1))}>"
        f'<img alt="" src="{data_url("image/jpeg", sample.thumbnail)}"></button>'
        for index, sample in enumerate(samples)
    )
    return f'<p class="hint">{both(guide.page["samples"])}</p><div class="samples">{buttons}</div>'


def settings(guide: Guide, refines: bool) -> str:
    page = guide.page
    return f"""
<h2>{both(page["settings"])}</h2>
<div class="setting">
  <label for="threshold">{both(page["threshold"])}</label><output for="threshold">0%</output>
  <input id="threshold" type="range" min="0" max="95" step="5" value="0"
    aria-describedby="about-threshold">
  <p class="hint" id="about-threshold">{both(page["threshold_help"])}</p>
</div>
<div class="setting">
  <label for="crf">{both(page["crf"])}</label>
  <input id="crf" type="checkbox" role="switch" aria-describedby="about-crf" {"checked" * refines}>
  <p class="hint" id="about-crf">{both(page["crf_help"])}</p>
</div>"""


def all_classes(guide: Guide, classes: Sequence[str]) -> str:
    """Every class and its advice, folded up."""
    colours = palette(len(classes))
    entries = "".join(
        f"<li>{_chip(colours[value])}<strong>{both(guide.advice(name).name)}</strong>"
        f'<p class="how">{both(guide.advice(name).how)}</p></li>'
        for value, name in enumerate(classes)
        if value
    )
    return f"""
<details><summary>{both(guide.result["all_classes"])}</summary><ul class="all">{entries}</ul></details>
<p class="hint caution">{both(guide.result["caution"])}</p>"""


def result_template(guide: Guide) -> str:
    """What surrounds any result: how it goes on with the next. Shown while page.js says so."""
    texts = guide.progress
    waiting = both(texts["waiting"]).replace("{ahead}", '<b class="ahead"></b>')
    return f"""
<div class="pending" role="status"><div class="moving"></div>
  <p class="place">{waiting}</p><p class="being-seen">{both(texts["looking"])}</p></div>
${{value}}"""


# --- what changes ------------------------------------------------------------------------------


def empty(guide: Guide) -> str:
    return f'<div class="empty">{PICTURE}<p>{both(guide.result["empty"])}</p></div>'


def refusal(text: Text) -> str:
    return f'<div class="refusal" role="alert">{WARNING}<p>{both(text)}</p></div>'


def result(guide: Guide, model: Segmenter, segmented: Segmented, language: Language) -> str:
    """The tinted photo, what to download, and a legend with the share of each class."""
    texts = guide.result
    picture = shown(segmented, len(model.classes))
    height, width = segmented.mask.shape
    shares = segmented.shares()
    entries = "".join(_entry(guide, model.classes, share) for share in shares)
    heading = texts["found"] if shares else texts["nothing"]
    return f"""
<img class="overlay" width="{width}" height="{height}" src="{data_url("image/jpeg", picture)}"
  {attribute("alt", texts["picture"], language)}>
<div class="downloads">{_downloads(guide, model, segmented)}</div>
<h2>{both(heading)}</h2>
<ul class="legend">{entries}</ul>
<p class="rest">{_rest(guide, segmented)}</p>"""


def shown(segmented: Segmented, classes: int) -> bytes:
    """The overlay as JPEG, smaller than a large photo."""
    image, mask = segmented.image, segmented.mask
    height, width = mask.shape
    shrink = SHOWN_SIDE / max(height, width)
    if shrink < 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        image = _resized(image, size, cv2.INTER_AREA)
        mask = _resized(mask, size, cv2.INTER_NEAREST)
    tinted = cv2.cvtColor(overlay(image, mask, classes), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", tinted, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return encoded.tobytes()


def _resized(image: Image, size: tuple[int, int], how: int) -> Image:
    return cv2.resize(image, size, interpolation=how).astype(image.dtype, copy=False)


def _entry(guide: Guide, classes: Sequence[str], share: Share) -> str:
    texts, advice = guide.result, guide.advice(classes[share.value])
    colour = palette(len(classes))[share.value]
    return f"""
<li>
  <div class="name">{_chip(colour)}<strong>{both(advice.name)}</strong>
    <span class="numbers">{share_of(texts["share_of_objects"], share.of_objects)} ·
    {share_of(texts["share_of_photo"], share.of_photo)}</span></div>
  <div class="bar" aria-hidden="true"><i style="width:{share.of_objects:.2%};{_fill(colour)}"></i></div>
  <p class="how">{both(advice.how)}</p>
</li>"""


def _downloads(guide: Guide, model: Segmenter, segmented: Segmented) -> str:
    texts = guide.result
    results = json.dumps(model.coco(segmented, "photo"), indent=1).encode()
    return (
        f'<a class="button" download="mask.png" aria-describedby="about-mask" '
        f'href="{data_url("image/png", encode_mask(segmented.mask))}">{SAVE}{both(texts["mask"])}</a>'
        f'<a class="button" download="coco.json" '
        f'href="{data_url("application/json", results)}">{SAVE}{both(texts["coco"])}</a>'
        f'<span class="hint" id="about-mask">{both(texts["mask_help"])}</span>'
    )


def _rest(guide: Guide, segmented: Segmented) -> str:
    """How much of the photo is no trash, and what the threshold left out."""
    texts, pixels = guide.result, segmented.mask.size
    unsure = segmented.unsure / pixels
    background = 1 - sum(share.of_photo for share in segmented.shares()) - unsure
    parts = [share_of(texts["background"], background)]
    if segmented.settings.threshold > 0:
        parts.append(share_of(texts["unsure"], unsure))
    return " ".join(parts)


def share_of(text: Text, share: float) -> str:
    """The text with its {percent}."""
    return both(text).replace("{percent}", f"<b>{percent(share)}</b>")


def percent(share: float) -> str:
    """With one digit; what is there but rounds to nothing says so."""
    return "&lt;0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


def _chip(colour: Any) -> str:
    return f'<span class="chip" style="{_fill(colour)}" aria-hidden="true"></span>'


def _fill(colour: Any) -> str:
    red, green, blue = (int(channel) for channel in colour)
    return f"background:rgb({red},{green},{blue})"


# --- icons: what they show is said in words beside them ----------------------------------------


def _icon(path: str) -> str:
    return f'<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d="{path}"/></svg>'


CAMERA = _icon("M4 8h3l2-3h6l2 3h3v11H4z M12 10a3.5 3.5 0 1 0 0 7a3.5 3.5 0 1 0 0-7")
PICTURE = _icon("M4 5h16v14H4z M4 16l5-5 4 4 3-3 4 4 M15.5 8.5h.01")
SAVE = _icon("M12 4v11 M7 11l5 5 5-5 M5 20h14")
LOCK = _icon("M6 11h12v9H6z M8.5 11V8a3.5 3.5 0 0 1 7 0v3")
WARNING = _icon("M12 4l9 16H3z M12 10v4 M12 17h.01")
