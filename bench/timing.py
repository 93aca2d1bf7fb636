"""Seconds of several ways of doing one thing, taken in turn: what disturbs the machine for a while then
disturbs all of them."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping


def seconds_in_turn(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median of `rounds` runs of each way, after one that does not count. The order turns round
    from one round to the next, so that none always follows the same other one."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        order = list(ways.items())
        for name, way in order if turn % 2 else reversed(order):
            gc.collect()
            started = time.perf_counter()
            way()
            elapsed = time.perf_counter() - started
            if turn > 0:
                taken[name].append(elapsed)
    return {name: statistics.median(times) for name, times in taken.items()}
