"""The model on Ray Serve, started by the command of the docs: batches, routes, what it listens on."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pydantic import ValidationError

from search.serve import ServeArgs, app
from tests.conftest import ROOT
from tests.search.test_doors import environment
from tests.trashseg.demo.uploads import photo
from tests.trashseg.untrained_folds import write_untrained
from trashseg.data.coco import load_coco
from trashseg.errors import CheckpointError

SERVE = Path(sys.executable).with_name("serve")
SECONDS = 300


@dataclass(frozen=True)
class Served:
    port: int
    process: psutil.Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"


def test_arguments_are_typed_and_unknown_ones_refused() -> None:
    args = ServeArgs.model_validate({"model": "runs/a/ensemble", "batch": "4", "gpus": "0.5"})
    assert (args.model, args.batch, args.gpus, args.host) == (
        Path("runs/a/ensemble"), 4, 0.5, "127.0.0.1",
    )  # fmt: skip
    with pytest.raises(ValidationError, match="bacth"):
        ServeArgs.model_validate({"model": "a", "bacth": "4"})
    with pytest.raises(ValidationError, match="max_replicas is 1, replicas is 2"):
        ServeArgs.model_validate({"model": "a", "replicas": "2", "max_replicas": "1"})


def test_a_model_that_is_not_there_is_refused_before_ray_starts() -> None:
    with pytest.raises(
        CheckpointError, match="model=none: no such folder: give runs/NAME/ensemble"
    ):
        app(ServeArgs(model=Path("none")))


@pytest.fixture(scope="module")
def served(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One replica that waits until two photos are there."""
    fold = tmp_path_factory.mktemp("untrained") / "fold"
    write_untrained(fold, load_coco(sample))
    home = tmp_path_factory.mktemp("home")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (f"model={fold}", f"port={port}", "batch=2", f"batch_wait={SECONDS}")
    log = home / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [SERVE, "run", "search.serve:app", *arguments],
            cwd=ROOT, env=environment(home), stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        served = Served(port, psutil.Process(process.pid))
        _wait_for(f"{served.url}/health", process, log)
        yield served
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            if httpx.get(url, timeout=SECONDS).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(log.read_text())


def _send(served: Served, content: bytes) -> Any:
    return httpx.post(f"{served.url}/segment", files={"photo": content}, timeout=SECONDS)


@pytest.mark.slow
def test_two_photos_are_seen_together(served: Served) -> None:
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda size: _send(served, photo(size, 60)), (90, 70)))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json()["width"] for answer in answers] == [90, 70]
    assert httpx.get(f"{served.url}/health").json() == {"status": "ok", "photos": 2, "batches": 1}


@pytest.mark.slow
def test_it_refuses_what_the_demo_refuses(served: Served) -> None:
    assert _send(served, b"I am a text\n").status_code == 415
    assert len(httpx.get(f"{served.url}/classes").json()) == 12


@pytest.mark.slow
def test_ray_and_serve_listen_on_loopback_alone(served: Served) -> None:
    family = [served.process, *served.process.children(recursive=True)]
    listening = [
        (process.name(), *connection.laddr)
        for process in family
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    loopback = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    assert served.port in [port for _, _, port in listening]
    assert [opened for opened in listening if opened[1] not in loopback] == []
