"""Who comes first is served first, one at a time."""

import asyncio

import pytest

from trashseg.demo.line import Line
from trashseg.demo.refusal import RefusedError


async def _stand(line: Line, name: str, done: list[str], leave: asyncio.Event) -> None:
    async with line.turn(name):
        await leave.wait()
        done.append(name)


async def _line_of(
    *names: str,
) -> tuple[Line, list[str], dict[str, asyncio.Event], list[asyncio.Task[None]]]:
    line, done = Line(), list[str]()
    leave = {name: asyncio.Event() for name in names}
    tasks = [asyncio.create_task(_stand(line, name, done, leave[name])) for name in names]
    await asyncio.sleep(0)  # each stands in the line now
    return line, done, leave, tasks


def test_turns_come_in_the_order_of_arrival_and_places_move_up() -> None:
    async def run() -> None:
        line, done, leave, tasks = await _line_of("a", "b", "c")
        assert [line.ahead(name) for name in "abc"] == [0, 1, 2]
        leave["c"].set()
        leave["b"].set()  # both would be ready before a
        await asyncio.sleep(0.01)
        assert done == []
        leave["a"].set()
        await asyncio.gather(*tasks)
        assert done == ["a", "b", "c"]
        assert len(line) == 0
        assert line.ahead("a") is None

    asyncio.run(run())


def test_whoever_leaves_the_line_holds_up_nobody() -> None:
    async def run() -> None:
        line, done, leave, tasks = await _line_of("a", "b", "c")
        tasks[1].cancel()
        await asyncio.sleep(0.01)
        assert line.ahead("c") == 1
        leave["a"].set()
        leave["c"].set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert done == ["a", "c"]
        assert len(line) == 0

    asyncio.run(run())


def test_a_failure_during_a_turn_lets_the_next_one_in() -> None:
    async def run() -> None:
        line = Line()
        with pytest.raises(ZeroDivisionError):
            async with line.turn():
                raise ZeroDivisionError
        async with line.turn():
            pass

    asyncio.run(run())


def test_two_tickets_of_one_name_do_not_have_their_turns_together() -> None:
    async def run() -> None:
        line, most, inside = Line(), 0, 0

        async def stand() -> None:
            nonlocal most, inside
            async with line.turn("same"):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(stand() for _ in range(5)))
        assert most == 1

    asyncio.run(run())


def test_a_full_line_refuses() -> None:
    async def run() -> None:
        line = Line(most=1)
        async with line.turn():
            with pytest.raises(RefusedError, match="Too many people are waiting"):
                async with line.turn():
                    pass
        async with line.turn():
            pass

    asyncio.run(run())
