"""The model of one process, for the page and for programs: loaded once, one photo at a time."""

import asyncio

from trashseg.demo.line import Line
from trashseg.demo.photos import decode_upload
from trashseg.demo.segment import Segmented, Segmenter, Settings


class Service:
    """A segmenter and the line before it.

    The work is done in a thread: torch, OpenCV and the CRF let the event loop go on meanwhile. The CRF
    stays in this process: with one photo at a time another would only add the way there.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.line = Line()

    async def segment(
        self,
        content: bytes,
        settings: Settings,
        ticket: str = "",
    ) -> Segmented:
        """Look at an encoded photo when it is its turn; RefusedError where it cannot be decoded or too
        many wait. By its ticket the line tells how many are before it."""
        async with self.line.turn(ticket):
            return await asyncio.to_thread(self._segment, content, settings)

    def _segment(self, content: bytes, settings: Settings) -> Segmented:
        return self.segmenter.segment(decode_upload(content), settings)

    def state(self) -> dict[str, int]:
        return {"waiting": len(self.line)}
