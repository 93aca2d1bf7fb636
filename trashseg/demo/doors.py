"""What is turned away before any of it is read."""

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trashseg.demo.photos import MAX_BYTES, MEGABYTES
from trashseg.demo.refusal import RefusedError

MAX_BODY = MAX_BYTES * 4 // 3 + 2**16
"""Bytes of a request: the page sends photos in base64."""

GRADIO = "/gradio_api/"
CALLED = ("queue/join", "queue/data", "heartbeat/", "startup-events", "cancel", "reset")
"""Gradio's routes that the page calls."""


def error_response(status: int, line: str) -> JSONResponse:
    return JSONResponse({"error": line}, status)


class LimitedBody:
    """Refuses a request that says it is too large, and one that turns out to be, without reading on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = RefusedError("too_large", megabytes=MEGABYTES)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > MAX_BODY:
            await error_response(refused.status, str(refused))(scope, receive, send)
            return
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > MAX_BODY:
                raise HTTPException(refused.status, str(refused))
            return message

        await self._app(scope, counted, send)


class CalledRoutes:
    """Closes Gradio's other routes: they keep what is uploaded, hand out files, fetch from elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path.startswith(GRADIO) and not path.removeprefix(GRADIO).startswith(CALLED):
            await error_response(404, "there is no such route here")(scope, receive, send)
            return
        await self._app(scope, receive, send)
