"""One photo at a time, first come first served: the page and the interface stand in one line."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from trashseg.demo.refusal import RefusedError

MOST = 20
"""Who may wait at once; each keeps a photo of 25 MB at most in memory."""


class Line:
    """For the coroutines of one event loop."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._tickets: list[object] = []
        self._moved = asyncio.Condition()

    def __len__(self) -> int:
        """Who waits or is being served."""
        return len(self._tickets)

    @asynccontextmanager
    async def turn(
        self, on_place: Callable[[int], None] = lambda ahead: None
    ) -> AsyncIterator[None]:
        """Within the block nobody else has the turn. `on_place` hears how many are before us, whenever
        that changes. RefusedError where too many wait already."""
        if len(self._tickets) >= self._most:
            raise RefusedError("busy")
        ticket = object()
        self._tickets.append(ticket)
        try:
            async with self._moved:
                while ahead := self._tickets.index(ticket):
                    on_place(ahead)
                    await self._moved.wait()
            yield
        finally:  # also where whoever waited has gone
            self._tickets.remove(ticket)
            async with self._moved:
                self._moved.notify_all()
