"""Events that wait on disk until somebody has them: in order, none lost, whatever is killed and when.

FOLDER/events.jsonl   every event, a line each, appended before `append` returns
FOLDER/delivered      how many of them were delivered; may be behind, never ahead
FOLDER/files/N/       files that go with event N, deleted with its delivery

An event may be delivered twice, if the process is killed between its delivery and the note of it:
whoever takes events must be able to take one again.
"""

import json
import os
import shutil
import threading
from collections import deque
from pathlib import Path
from typing import Any

from trashseg.files import write_text

Event = dict[str, Any]


class Outbox:
    """One process at a time opens it; in that, any thread may append and one may deliver."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.history = read_whole_lines(folder / "events.jsonl")
        """What was appended before this opening."""
        note = folder / "delivered"
        self._delivered = int(note.read_text()) if note.is_file() else 0
        self._waiting = deque(self.history[self._delivered :])
        self._file = (folder / "events.jsonl").open("ab")
        self._changed = threading.Condition()
        self._hurried = 0  # who wait until all are delivered

    def __len__(self) -> int:
        """How many events wait."""
        return len(self._waiting)

    def append(self, event: Event) -> None:
        """It is on the disk when this returns."""
        with self._changed:
            self._file.write(json.dumps(event).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._waiting.append(event)
            self._changed.notify_all()

    def new_folder(self) -> str:
        """Name of an empty folder under files/ for the files of the next event."""
        with self._changed:
            number = self._delivered + len(self._waiting)
            folder = self.folder / "files" / str(number)
            shutil.rmtree(folder, ignore_errors=True)  # of an event that was never appended
            folder.mkdir(parents=True)
            return str(number)

    def files(self, event: Event) -> Path:
        return self.folder / "files" / str(event["files"])

    def waiting(self, most: int, seconds: float, gather: float = 0.0) -> list[Event]:
        """The next events, at least one if it comes within `seconds`; `gather` seconds longer for more,
        unless there are `most` or somebody waits until all are delivered."""
        with self._changed:
            if self._changed.wait_for(lambda: bool(self._waiting), timeout=seconds):
                self._changed.wait_for(
                    lambda: len(self._waiting) >= most or self._hurried > 0, timeout=gather
                )
            return [self._waiting[place] for place in range(min(most, len(self._waiting)))]

    def delivered(self, count: int) -> None:
        """The first `count` waiting events were taken."""
        with self._changed:
            taken = [self._waiting.popleft() for _ in range(count)]
            self._delivered += count
            write_text(self.folder / "delivered", str(self._delivered))
            self._changed.notify_all()
        for event in taken:
            if "files" in event:
                shutil.rmtree(self.files(event), ignore_errors=True)

    def wait_until_empty(self, seconds: float) -> bool:
        with self._changed:
            self._hurried += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: not self._waiting, timeout=seconds)
            finally:
                self._hurried -= 1

    def close(self) -> None:
        self._file.close()


def read_whole_lines(file: Path) -> list[Event]:
    """The events in `file`; a last line that was cut off by a kill is cut off the file."""
    if not file.is_file():
        return []
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with file.open("r+b") as broken:
            broken.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines()]
