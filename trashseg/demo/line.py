"""One photo at a time, first come first served: the page and the interface stand in one line."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from trashseg.demo.refusal import RefusedError

MOST = 20
"""Who may wait at once; each keeps a photo of 25 MB at most in memory."""


@dataclass(frozen=True, eq=False)
class Ticket:
    """A place in the line; two of one name are two places."""

    name: str


class Line:
    """For the coroutines of one event loop."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._tickets: list[Ticket] = []
        self._moved = asyncio.Condition()

    def __len__(self) -> int:
        """Who waits or is being served."""
        return len(self._tickets)

    def ahead(self, name: str) -> int | None:
        """How many come before the ticket of that name; None where there is none (any more)."""
        places = (place for place, ticket in enumerate(self._tickets) if ticket.name == name)
        return next(places, None)

    @asynccontextmanager
    async def turn(self, name: str = "") -> AsyncIterator[None]:
        """Within the block nobody else has the turn. RefusedError where too many wait already."""
        if len(self._tickets) >= self._most:
            raise RefusedError("busy")
        ticket = Ticket(name)
        self._tickets.append(ticket)
        try:
            async with self._moved:
                await self._moved.wait_for(lambda: self._tickets[0] is ticket)
            yield
        finally:  # also where whoever waited has gone
            self._tickets.remove(ticket)
            async with self._moved:
                self._moved.notify_all()
