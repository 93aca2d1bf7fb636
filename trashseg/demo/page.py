"""The page, made with Gradio: it carries photos to the model and results back, through its queue.

Gradio's own components are not used: they write what is uploaded and what is shown to files that stay,
and their texts have one language at a time. Ours are HTML (markup.py, page.css, page.js). A photo
arrives inside the event that the page triggers, and the result leaves as one piece of HTML with the
picture and the downloads in it. So no photo is ever on the disk.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

# before gradio is imported, which asks for a newer version of itself and reports what it is used for
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from fastapi import FastAPI
from pydantic import Base64Bytes

from trashseg.demo import markup
from trashseg.demo.doors import CalledRoutes
from trashseg.demo.guide import Language, read_guide
from trashseg.demo.photos import check_bytes, check_upload
from trashseg.demo.refusal import RefusedError
from trashseg.demo.samples import Sample
from trashseg.demo.segment import Settings
from trashseg.demo.service import Service
from trashseg.sections import Probability, Section

HERE = Path(__file__).parent
FONTS = ["system-ui", "Apple SD Gothic Neo", "Malgun Gothic", "Noto Sans CJK KR", "sans-serif"]
PATH = "/"
LOG = logging.getLogger("uvicorn.error")  # of the server, which prints it


class Asked(Section):
    """What page.js sends: a photo, or the number of a sample, or only how large the photo would be."""

    photo: Base64Bytes | None
    size: int
    """Bytes of the photo; one that is too large is not sent."""
    sample: int | None
    threshold: Probability
    crf: bool
    language: Language
    ticket: str
    """With which the page asks how many are before it."""

    def content(self, samples: Sequence[Sample]) -> bytes:
        if self.sample is not None:
            return samples[self.sample].path.read_bytes()
        check_bytes(self.size)
        return self.photo or b""


def mount_page(app: FastAPI, service: Service, samples: Sequence[Sample]) -> FastAPI:
    """`app` with the page at its root."""

    @app.get("/place/{ticket}", include_in_schema=False)
    async def place(ticket: str) -> dict[str, int | None]:
        return {"ahead": service.line.ahead(ticket)}

    app.add_middleware(CalledRoutes)
    theme = gr.themes.Base(font=FONTS, font_mono=["ui-monospace", "monospace"])
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        _page(service, samples),
        path=PATH,
        footer_links=[],
        run_history=False,  # it would keep photos and results in the browser
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        # as `css` it would be rewritten, and no rule would see the classes of <html>
        head=f"<style>{(HERE / 'page.css').read_text(encoding='utf-8')}</style>",
        app_kwargs={"docs_url": None, "redoc_url": None},
    )
    return mounted


def _page(service: Service, samples: Sequence[Sample]) -> gr.Blocks:
    guide, model = read_guide(), service.segmenter
    title = f"{guide.page['title'].ko} {guide.page['title'].en}"
    page: gr.Blocks
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as page:
        _html("header", markup.header(guide))
        with gr.Column(elem_id="layout"):
            script = (HERE / "page.js").read_text(encoding="utf-8")
            picker = _html("picker", markup.picker(guide, samples), script)
            result = _html("result", markup.empty(guide), template=markup.result_template(guide))
            _html("settings", markup.settings(guide, model.refines))
            _html("guide", markup.all_classes(guide, model.classes))
        answered = picker.segment(
            _answer(service, samples),
            outputs=result,
            show_progress="hidden",  # Gradio's words have one language: page.js shows ours
            trigger_mode="always_last",
            concurrency_limit=None,  # the line is service.py's: programs stand in it too
            api_visibility="private",
        )
        answered.then(None, js="() => { document.dispatchEvent(new Event('answered')); }")
    page.queue(api_open=False)
    return page


def _html(name: str, value: str, script: str | None = None, template: str = "${value}") -> gr.HTML:
    return gr.HTML(
        value, html_template=template, elem_id=name, js_on_load=script, apply_default_css=False
    )


def _answer(service: Service, samples: Sequence[Sample]) -> Callable[..., Awaitable[str]]:
    guide = read_guide()

    async def result(asked: Asked) -> str:
        settings = Settings(threshold=asked.threshold, crf=asked.crf)
        content = asked.content(samples)
        check_upload(content)
        segmented = await service.segment(content, settings, asked.ticket)
        return await asyncio.to_thread(
            markup.result, guide, service.segmenter, segmented, asked.language
        )

    async def answer(event: gr.EventData) -> str:
        try:
            return await result(Asked.model_validate(event._data))
        except RefusedError as refused:
            return markup.refusal(refused.text)
        except Exception:  # Gradio (6.31) would say so in English only, and never call `then`
            LOG.exception("a photo could not be looked at")
            return markup.refusal(guide.result["failed"])

    return answer
