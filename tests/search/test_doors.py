"""What a local search opens on the network: nothing. What a joined cluster's token keeps out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

LISTENING = """
import json, os, psutil, ray
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
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("RAY_")
    } | {"HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", LISTENING],
        env=environment,
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
    outer = [(name, ip) for name, ip in listening if ip not in ("127.0.0.1", "::1")]
    assert outer == []


def test_its_dashboard_is_on_loopback(opened: dict[str, object]) -> None:
    assert str(opened["dashboard"]).startswith("http://127.0.0.1:")


def test_its_token_is_made_and_asked_for(opened: dict[str, object]) -> None:
    assert opened["mode"] == "token"
    assert (Path(str(opened["home"])) / ".ray" / "auth_token").read_text()
