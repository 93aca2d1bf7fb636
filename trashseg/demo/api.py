"""The HTTP interface for programs; docs/demo.md shows each call.

GET  /api/v1/health    whether it is up, and what waits
GET  /api/v1/classes   what the numbers in a mask mean, their colours, names and advice
POST /api/v1/segment   a photo, as the part `photo` of a form, to json, or to the mask: Accept: image/png

Whatever is refused is {"error": one line} with a status that says which kind of mistake it was. The same
app is served by `launch.py demo`, under the page, and by Ray Serve.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from trashseg.demo.doors import LimitedBody, error_response
from trashseg.demo.guide import read_guide
from trashseg.demo.photos import check_bytes, check_upload
from trashseg.demo.refusal import RefusedError
from trashseg.demo.segment import Segmented, Segmenter, Settings
from trashseg.pictures import encode_mask
from trashseg.predict import describe_classes

PREFIX = "/api/v1"

Segment = Callable[[bytes, Settings], Awaitable[Segmented]]
State = Callable[[], Mapping[str, int]]


def make_api(segmenter: Segmenter, segment: Segment, state: State) -> FastAPI:
    """The routes above, around whatever looks at a photo; `state` is what /health tells of it."""
    # FastAPI's pages of documentation fetch scripts from the internet: the description alone is offered
    app = FastAPI(
        title="trashseg", docs_url=None, redoc_url=None, openapi_url=f"{PREFIX}/openapi.json"
    )
    app.add_middleware(LimitedBody)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)

    @app.get(f"{PREFIX}/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", **state()}

    @app.get(f"{PREFIX}/classes")
    async def classes() -> list[dict[str, Any]]:
        return describe(segmenter)

    @app.post(f"{PREFIX}/segment")
    async def segment_photo(
        request: Request, photo: UploadFile, settings: Annotated[Settings, Query()]
    ) -> Response:
        as_mask = wants_mask(request.headers.get("accept", "*/*"))
        check_bytes(photo.size or 0)
        content = await photo.read()
        check_upload(content)  # before anybody waits for it
        segmented = await segment(content, settings)
        if as_mask:
            return Response(encode_mask(segmented.mask), media_type="image/png")
        return JSONResponse(tell(segmenter, segmented, photo.filename or "photo"))

    return app


def wants_mask(accept: str) -> bool:
    """Whether a header Accept asks for the mask: whichever it names first. RefusedError if neither."""
    for offer in accept.split(","):
        kind = offer.partition(";")[0].strip().lower()
        if kind in ("image/png", "image/*"):
            return True
        if kind in ("application/json", "application/*", "*/*", ""):
            return False
    raise RefusedError("no_such_form")


def describe(segmenter: Segmenter) -> list[dict[str, Any]]:
    """Each class: its value in a mask, name, colour, category id, and what the guide says of it."""
    guide, ids = read_guide(), (None, *segmenter.category_ids)
    described = describe_classes(segmenter.classes)
    for entry, category_id in zip(described, ids, strict=True):
        if category_id is not None:
            advice = guide.advice(entry["name"])
            names = {"names": advice.name.model_dump(), "how": advice.how.model_dump()}
            entry.update(category_id=category_id, **names)
    return described


def tell(segmenter: Segmenter, segmented: Segmented, name: str) -> dict[str, Any]:
    """What was found, as json: sizes in pixels, shares between 0 and 1, COCO results."""
    height, width = segmented.mask.shape
    shares = [
        {
            "value": share.value,
            "name": segmenter.classes[share.value],
            "pixels": share.pixels,
            "of_objects": round(share.of_objects, 6),
            "of_photo": round(share.of_photo, 6),
        }
        for share in segmented.shares()
    ]
    return {
        "width": width,
        "height": height,
        **segmented.settings.model_dump(),
        "classes": shares,
        "unsure_of_photo": round(segmented.unsure / segmented.mask.size, 6),
        "results": segmenter.coco(segmented, name),
    }


# --- what is refused ---------------------------------------------------------------------------


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return error_response(error.status, str(error))


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = (f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg'].lower()}" for e in error.errors())
    return error_response(422, "; ".join(problems))


def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, error.detail)
