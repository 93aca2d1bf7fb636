"""What a local search opens on the network: nothing. What a joined cluster's token keeps out."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

RAY = str(Path(sys.executable).with_name("ray"))


def environment(home: Path, **more: str) -> dict[str, str]:
    """Of a user who has nothing of Ray's but what lies in `home`."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return mine | {"HOME": str(home), "PYTHONPATH": str(ROOT)} | more


# --- a search on this machine ------------------------------------------------------------------

LISTENING = """
import json, os
import ray
import psutil  # comes with Ray, which must be imported first
from search.cluster import connect

dashboard = connect("local")
ray.get(ray.remote(lambda: 1).remote())  # so that a worker and its port are there too
# the raylet, and so its workers and agents, are children of this process
family = [psutil.Process(), *psutil.Process().children(recursive=True)]
listening = [
    (process.name(), connection.laddr.ip)
    for process in family
    for connection in process.net_connections(kind="tcp")
    if connection.status == psutil.CONN_LISTEN
]
print(json.dumps({"dashboard": dashboard, "listening": listening, "mode": os.environ["RAY_AUTH_MODE"]}))
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a process of its own opens that starts a local cluster as a search does."""
    home = tmp_path_factory.mktemp("home")
    done = subprocess.run(
        [sys.executable, "-c", LISTENING],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return {"home": home, **json.loads(done.stdout.splitlines()[-1])}


def test_a_local_search_listens_on_loopback_alone(opened: dict[str, object]) -> None:
    listening = opened["listening"]
    assert isinstance(listening, list)
    assert len(listening) >= 4, "the GCS, the raylet, the dashboard and a worker at the least"
    loopback = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    outer = [(name, ip) for name, ip in listening if ip not in loopback]
    assert outer == []


def test_its_dashboard_is_on_loopback(opened: dict[str, object]) -> None:
    assert str(opened["dashboard"]).startswith("http://127.0.0.1:")


def test_its_token_is_made_and_asked_for(opened: dict[str, object]) -> None:
    assert opened["mode"] == "token"
    assert (Path(str(opened["home"])) / ".ray" / "auth_token").read_text()


# --- a cluster that asks for a token -----------------------------------------------------------


@dataclass(frozen=True)
class Guarded:
    address: str
    home: Path
    """Of the user who started it, with the token."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A head that was started by hand as the README says."""
    home = tmp_path_factory.mktemp("home")
    subprocess.run([RAY, "get-auth-token", "--generate"], env=environment(home), check=True)
    temporary = tempfile.mkdtemp(prefix="ray-")  # short: paths of sockets end at 107 characters
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = subprocess.Popen(
        [
            *(RAY, "start", "--head", "--block", f"--port={port}", f"--temp-dir={temporary}"),
            *("--num-cpus=1", "--include-dashboard=false", "--object-store-memory=100000000"),
        ],
        env=environment(home, RAY_AUTH_MODE="token"),
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(port, head)
        yield Guarded(f"127.0.0.1:{port}", home)
    finally:
        head.terminate()
        head.wait(timeout=60)
        shutil.rmtree(temporary)


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        with closing(socket.socket()) as knocking:
            if knocking.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("the head did not start")


def join(cluster: Guarded, home: Path, **more: str) -> str:
    """What a process says that tries to join as the user of `home`."""
    script = (
        "import ray\nfrom search.cluster import connect\n"
        "from trashseg.errors import ResourceError\n"
        f"try:\n    connect({cluster.address!r})\n    print('joined', len(ray.nodes()))\n"
        "except ResourceError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_who_has_the_token_joins(guarded: Guarded) -> None:
    assert join(guarded, guarded.home, RAY_AUTH_MODE="token") == "joined 1"


def test_who_has_no_token_is_told_how_to_get_it(guarded: Guarded, tmp_path: Path) -> None:
    refused = join(guarded, tmp_path)
    assert refused.startswith(f"--address {guarded.address}: the cluster's token is not this mach")
    assert refused.endswith("from its head node and export RAY_AUTH_MODE=token")


def test_another_token_is_refused(guarded: Guarded, tmp_path: Path) -> None:
    refused = join(guarded, tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    assert refused.startswith(f"--address {guarded.address}: the cluster's token is not this mach")
