"""What a search says to MLflow: one parent run; trials, retrained folds and the ensemble nested in it.

Everything is said to a file first (search/outbox.py) and delivered by one thread of the driver, so that
a lost server holds nothing up, a killed driver loses nothing, and one process alone writes to sqlite
(mlflow issue 6490). A run is called by what it is of: "parent", "trial/trial_003", "fold/trial_003/1",
"ensemble".
"""

import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from mlflow.exceptions import MlflowException

from search.confusion import draw_confusion
from search.mlflow_store import MlflowStore, RefusedError, first_line, flatten
from search.outbox import Event, Outbox
from search.run_folder import RunFolder
from trashseg.config import TrainConfig

STATUS = {"finished": "FINISHED", "pruned": "KILLED", "stopped": "KILLED", "failed": "FAILED"}
AT_ONCE = 200  # events that are looked at for one delivery
GATHER_SECONDS = 1.0  # that MLflow may be behind: what comes together goes into fewer calls
FLUSH_SECONDS = 30.0
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # between tries to reach a lost server, in seconds


def check_store(tracking_uri: str) -> None:
    """TrashSegError where the store or server cannot be used."""
    MlflowStore(tracking_uri)


class Tracker:
    """The MLflow runs of one search. `warn` hears when the server is lost and found again."""

    def __init__(
        self, run: RunFolder, tracking_uri: str, warn: Callable[[str], None] = print
    ) -> None:
        self._uri, self._warn = tracking_uri, warn
        self._store = MlflowStore(tracking_uri)
        self._outbox = Outbox(run.mlflow)
        self._epochs: set[tuple[str, int]] = set()
        self._started: set[str] = set()
        self._ended: set[str] = set()
        self._mine: set[str] = set()  # runs that this process started and has not ended
        search_id = uuid.uuid4().hex
        for event in self._outbox.history:
            search_id = event.get("search_id", search_id)
            self._take_in(event)
        if not self._outbox.history:
            self._outbox.append({"kind": "search", "search_id": search_id})
        self._store.open(self._outbox, search_id, run.mlflow_runs)
        self._closing = threading.Event()
        self._bug: BaseException | None = None
        self._thread = threading.Thread(target=self._deliver, name="mlflow", daemon=True)
        self._thread.start()

    def _take_in(self, event: Event) -> None:
        """What later calls are judged by, of an event of now or of an earlier command."""
        what = event.get("what", "")
        if event["kind"] == "start":
            self._started.add(what)
            self._ended.discard(what)
        elif event["kind"] == "metrics" and event["step"]:
            self._epochs.add((what, event["step"]))
        elif event["kind"] == "end":
            self._ended.add(what)

    def _say(self, kind: str, what: str, **more: Any) -> None:
        if self._bug:
            raise self._bug
        event = {"kind": kind, "what": what, "at": int(time.time() * 1000), **more}
        self._take_in(event)
        self._outbox.append(event)

    # --- what can be said ----------------------------------------------------------------------

    def start(
        self, what: str, name: str, config: TrainConfig | None, tags: Mapping[str, str]
    ) -> None:
        """The run begins, or is taken up again under the id that it has."""
        self._mine.add(what)
        tree = config.model_dump(mode="json") if config else None
        self._say("start", what, name=name, config=tree, tags=dict(tags))

    def has_started(self, what: str) -> bool:
        return what in self._started

    def has_ended(self, what: str) -> bool:
        """Whether its end is the last that was said of it."""
        return what in self._ended

    def log_epoch(self, what: str, metrics: Mapping[str, Any]) -> None:
        """All numbers of one epoch, with the epoch as step; per-class IoU as iou/CLASS. A second time
        is no news: a trial that is taken up again repeats its last epoch."""
        if (what, metrics["epoch"]) not in self._epochs:
            self._say("metrics", what, step=metrics["epoch"], metrics=numbers(metrics))

    def log_scores(self, what: str, scores: Mapping[str, Any], prefix: str = "") -> None:
        """Final scores, at step 0; the newest count."""
        named = {f"{prefix}{key}": value for key, value in scores.items()}
        self._say("metrics", what, step=0, metrics=numbers(named))

    def log_files(self, what: str, folder: Path, artifact_path: str) -> None:
        """All files in `folder`, as they are now."""
        if folder.is_dir():
            with self._files(what) as files:
                shutil.copytree(folder, files / artifact_path)

    def log_file(self, what: str, file: Path) -> None:
        with self._files(what) as files:
            shutil.copy(file, files)

    def log_text(self, what: str, text: str, artifact_file: str) -> None:
        with self._files(what) as files:
            (files / artifact_file).write_text(text)

    def log_confusion(self, what: str, table: Path) -> None:
        """confusion.csv as a picture, each row as shares of its truth."""
        with self._files(what) as files:
            draw_confusion(table).savefig(files / "confusion.png")

    def end(self, what: str, state: str, detail: str = "") -> None:
        """`state` is a key of STATUS; `detail` is shown with it, e.g. "at epoch 3"."""
        self._mine.discard(what)
        self._say("end", what, status=STATUS[state], state=f"{state} {detail}".strip()[:5000])

    @contextmanager
    def _files(self, what: str) -> Iterator[Path]:
        number = self._outbox.new_folder()
        yield self._outbox.folder / "files" / number
        self._say("files", what, files=number)

    # --- delivery ------------------------------------------------------------------------------

    @contextmanager
    def closing(self) -> Iterator[Self]:
        """Ends the runs that the block leaves open when it ends early: none is left RUNNING. Waits a
        while for MLflow to have everything."""
        try:
            yield self
        except BaseException as error:
            state = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            for what in sorted(self._mine):
                self.end(what, state, str(error)[:300])
            raise
        finally:
            self.close()

    def close(self) -> None:
        if not self._outbox.wait_until_empty(FLUSH_SECONDS) and not self._bug:
            self._warn(
                f"MLflow at {self._uri} lacks {len(self._outbox)} events: they are kept in "
                f"{self._outbox.folder}, the next command on this run sends them"
            )
        self._closing.set()
        self._thread.join()
        self._outbox.close()
        if self._bug:
            raise self._bug

    def _deliver(self) -> None:
        try:
            while not self._closing.is_set():
                if events := self._outbox.waiting(AT_ONCE, 0.2, GATHER_SECONDS):
                    self._outbox.delivered(self._send(events))
        except BaseException as bug:  # raised by whoever speaks to the tracker next
            self._bug = bug

    def _send(self, events: list[Event]) -> int:
        """Deliver the first events, however long it takes; returns how many."""
        if events[0]["kind"] == "search":
            return 1
        tries = 0
        while not self._closing.is_set():
            try:
                self._store.take(events)
                if tries:
                    self._warn(f"MLflow at {self._uri} is back, {len(self._outbox)} events follow")
                return len(events)
            except RefusedError as error:
                if len(events) > 1:  # which of them? One by one, then
                    events = events[:1]
                    continue
                self._set_aside(events[0], str(error))
                return 1
            except (OSError, MlflowException) as error:
                if not tries:
                    self._warn(
                        f"MLflow at {self._uri} does not answer ({first_line(error)}): events are "
                        f"kept in {self._outbox.folder} and sent when it is back"
                    )
                self._closing.wait(PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1
        return 0

    def _set_aside(self, event: Event, reason: str) -> None:
        """An event that MLflow will never take must not hold up those after it."""
        with (self._outbox.folder / "refused.jsonl").open("a") as file:
            file.write(json.dumps({"reason": reason, **event}) + "\n")
        self._warn(f"MLflow at {self._uri} refused {event['kind']} of {event['what']}: {reason}")


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What of `metrics` is a number, nested names joined by a slash."""
    return {
        key: float(value)
        for key, value in flatten(dict(metrics), separator="/")
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
