"""How often a trial crashed: kept with the trial, so that every worker that takes it up knows.

A crash is an exception, or a worker process that died under the trial while its node and its search
lived on. A lost node and a killed search are not the trial's fault and are not counted.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from trashseg.files import write_json

DIED = "the worker process died (killed, or out of memory); see Ray's logs of its node"


@dataclass
class Attempt:
    """One worker's work on a trial. `crash` is its traceback."""

    session: str  # the command under which it ran
    node: str
    pid: int
    over: bool = False
    crash: str = ""


class Attempts:
    """The attempts at one trial, in TRIAL/attempts.json."""

    def __init__(self, file: Path) -> None:
        self._file = file
        known = json.loads(file.read_text()) if file.is_file() else []
        self._attempts = [Attempt(**entry) for entry in known]

    def begin(self, session: str, node: str, node_lives: Callable[[str], bool]) -> None:
        """A new attempt; one before it that never ended was a crash, if its node still lives."""
        for attempt in self._attempts:
            if not attempt.over:
                attempt.over = True
                if attempt.session == session and node_lives(attempt.node):
                    attempt.crash = DIED
        self._attempts.append(Attempt(session, node, os.getpid()))
        self._write()

    def crashed(self, traceback: str) -> None:
        last = self._attempts[-1]
        last.over, last.crash = True, traceback
        self._write()

    @property
    def crashes(self) -> list[str]:
        """The tracebacks, oldest first."""
        return [attempt.crash for attempt in self._attempts if attempt.crash]

    def _write(self) -> None:
        write_json(self._file, [asdict(attempt) for attempt in self._attempts])
