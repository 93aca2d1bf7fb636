"""When a search waits, and when it ends early: a full disk, a time budget, trials that keep failing."""

import re
import shutil
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.stopper import Stopper

POLL_SECONDS = 1.0
NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")
FEWEST_TO_GIVE_UP = 4  # trials that must have ended before "more than half failed" means anything


def wait_for_room(folder: Path, min_free_gb: float, say: Callable[[str], None]) -> None:
    """Return once the disk of `folder` has `min_free_gb` free; `say` hears of the wait and its end."""
    if _free_gb(folder) >= min_free_gb:
        return
    say(
        f"paused: the disk of {folder} has {_free_gb(folder):.2f} GB free, search.min_free_gb is "
        f"{min_free_gb:g}: free some space and the search goes on; nothing is lost"
    )
    while _free_gb(folder) < min_free_gb:
        time.sleep(POLL_SECONDS)
    say(f"going on: {_free_gb(folder):.2f} GB are free")


def _free_gb(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 1e9


class TimeBudget:
    """Whether a trial that starts now would end in time, judged by the epochs seen so far."""

    def __init__(self, seconds: float | None, epochs: int) -> None:
        self._seconds, self._epochs = seconds, epochs
        self._started = time.monotonic()
        self._seen: deque[float] = deque(maxlen=100)
        self.spent = False

    def saw_epoch(self, seconds: float) -> None:
        self._seen.append(seconds)

    def allows_a_trial(self) -> bool:
        if self._seconds is None:
            return True
        trial = self._epochs * statistics.median(self._seen) if self._seen else 0.0
        self.spent = time.monotonic() - self._started + trial > self._seconds
        return not self.spent


class TooManyFailures(Stopper):
    """Ends the search when more than half of the trials that ended under this command failed.

    Trials that run at that moment stay open: a resume goes on with them.
    """

    def __init__(self) -> None:
        self._ended = 0
        self._errors: list[str] = []

    def trial_ended(self, name: str, state: str, facts: dict[str, Any]) -> None:
        self._ended += 1
        if state == "failed":
            self._errors.append(str(facts["error"]))

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._ended >= FEWEST_TO_GIVE_UP and len(self._errors) > self._ended / 2

    @property
    def verdict(self) -> str:
        """How many failed, and the error that most of them had; numbers in it may differ."""
        causes = Counter(NUMBER.sub("#", error) for error in self._errors)
        [(cause, count)] = causes.most_common(1)
        example = next(error for error in self._errors if NUMBER.sub("#", error) == cause)
        return (
            f"{len(self._errors)} of {self._ended} trials failed, {count} of them like: {example}"
        )
