"""A real search over several Ray nodes on this machine: it spreads, outlives one, and uses a new one."""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from search import driver
from search.checkpoint_store import check_unused
from search.cluster import connect
from search.config import SearchConfig, load_search_config
from search.driver import run_search
from search.finals import retrain
from search.ledger import read_trials
from search.results import Row
from search.run_folder import RunFolder
from tests.faults.observed_trial import OBSERVED, observed_trial, read_epochs
from tests.search.nodes import Nodes, can_hide_folders, can_make_networks
from tests.search.waiting_trial import WAITING, waiting_trial
from tests.tiny import TINY_LEARNER, as_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRIALS = 5


def make_config(
    cluster: Nodes, folder: Path, data: Path, epochs: int = 4, *more: str
) -> SearchConfig:
    (folder / "space.yaml").write_text("optim.decoder_lr: {float: [1.0e-4, 3.0e-3], log: true}\n")
    return load_search_config(
        None,
        [
            f"epochs={epochs}", "batch_size=8", "patience=0", "data.image_size=64", "data.folds=2",
            "search.name=night", f"search.data_dir={data}", f"search.space={folder}/space.yaml",
            f"search.trials={TRIALS}", f"search.grace_period={epochs}", "search.cpus_per_trial=1",
            f"search.storage={folder}/runs", f"search.tracking_uri=sqlite:///{folder}/mlflow.db",
            f"search.address={cluster.address}", "search.max_failures=0", "search.min_free_gb=0",
            *as_settings(TINY_LEARNER), *more,
        ],
    )  # fmt: skip


class Watched:
    """A search in this process, watched and meddled with by a thread."""

    def __init__(self, config: SearchConfig) -> None:
        self.run = RunFolder(Path(config.search.storage) / config.search.name)
        self._config = config

    def attempts(self) -> dict[str, list[str]]:
        """Node of each attempt, by trial."""
        files = sorted(self.run.path.glob("trials/*/attempts.json"))
        return {
            file.parent.name: [attempt["node"] for attempt in json.loads(file.read_text())]
            for file in files
        }

    def nodes(self) -> set[str]:
        """On which there were attempts."""
        return {node for nodes in self.attempts().values() for node in nodes}

    def epochs(self) -> int:
        trials = read_trials(self.run.study_db, self._config.search.name)
        return sum(len(trial.intermediate_values) for trial in trials)

    def wait_for(self, epochs: int, nodes: int = 0) -> None:
        """Until so many epochs are reported, and there were attempts on so many nodes."""
        while self.epochs() < epochs or len(self.nodes()) < nodes:
            time.sleep(0.3)  # to read the study takes a tenth of that

    def search(self, meddle: Callable[[], None]) -> list[Row]:
        """The rows of the search; `meddle` is called once it has begun."""
        met = threading.Event()

        def watch() -> None:
            while not self.run.study_db.is_file():
                time.sleep(0.05)
            meddle()
            met.set()

        threading.Thread(target=watch, daemon=True).start()
        _, rows = run_search(self._config)
        assert met.is_set()
        return rows


def check_whole(rows: list[Row], epochs: int = 4) -> None:
    assert sorted(row.trial_id for row in rows) == [f"trial_{n:03d}" for n in range(TRIALS)]
    assert [(row.state, row.epochs) for row in rows] == [("finished", epochs)] * TRIALS


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where trials say that they wait, until a file `go` is there: none trains before."""
    folder = tmp_path / WAITING
    folder.mkdir()
    monkeypatch.setattr(driver, "run_trial", waiting_trial)
    return folder


def let_go(waiting: Path, nodes: int) -> None:
    """Once trials wait on so many nodes."""
    while len(list(waiting.iterdir())) < nodes:
        time.sleep(0.05)
    (waiting / "go").touch()


def test_a_search_spreads_over_two_nodes(
    cluster: Nodes, tmp_path: Path, sample: Path, waiting: Path
) -> None:
    """No trial trains before one has come to each of them."""
    search = Watched(make_config(cluster, tmp_path, sample))
    check_whole(search.search(lambda: let_go(waiting, nodes=2)))
    attempts = search.attempts()
    assert len(attempts) == TRIALS
    assert len({node for [node] in attempts.values()}) == 2


def test_a_search_of_three_nodes_ends_whole_when_one_dies_in_the_middle(
    cluster: Nodes, tmp_path: Path, sample: Path, waiting: Path
) -> None:
    """Without a failure to spare: a lost node is no crash of its trial."""
    cluster.add("third")
    search = Watched(make_config(cluster, tmp_path, sample))

    def kill() -> None:
        let_go(waiting, nodes=3)
        search.wait_for(epochs=4, nodes=3)
        cluster.kill("third")

    check_whole(search.search(kill))
    attempts = search.attempts()
    assert len(search.nodes()) == 3
    moved = [nodes for nodes in attempts.values() if len(nodes) == 2]
    assert len(moved) <= 1  # the one that the third node was training, if any
    assert all(first != second for first, second in moved)


def test_a_node_that_joins_is_used(
    cluster: Nodes, tmp_path: Path, sample: Path, waiting: Path
) -> None:
    """No trial trains before one has come to the third node."""
    search = Watched(make_config(cluster, tmp_path, sample, epochs=1))

    def join() -> None:
        cluster.join("third")
        let_go(waiting, nodes=3)

    check_whole(search.search(join), epochs=1)
    assert len({node for [node] in search.attempts().values()}) == 3


# --- nodes with networks of their own --------------------------------------------------------------


@pytest.fixture
def networked() -> Iterator[Nodes]:
    """A head with one CPU, and a node with one CPU in a network of its own."""
    if not can_make_networks():
        pytest.skip("no iproute2 here, or no right to make network namespaces")
    nodes = Nodes()
    try:
        nodes.add("first")
        connect(nodes.address)
        nodes.join_over_network("second")
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def test_a_search_over_a_network_ends_whole_when_the_cable_is_cut(
    networked: Nodes, tmp_path: Path, sample: Path, waiting: Path
) -> None:
    """The node behind it goes on training until it notices; its trial is taken up by the other one."""
    search = Watched(make_config(networked, tmp_path, sample))

    def cut() -> None:
        let_go(waiting, nodes=2)
        search.wait_for(epochs=2, nodes=2)
        networked.cut("second")

    check_whole(search.search(cut))
    assert len(search.nodes()) == 2


# --- nodes that share no folder for runs -----------------------------------------------------------


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """A head that trains nothing, and two nodes that see a run folder of their own each."""
    if not can_hide_folders():
        pytest.skip("no right to make mount namespaces here (unshare)")
    monkeypatch.setenv(OBSERVED, str(tmp_path / "epochs"))
    storage = tmp_path / "runs"
    storage.mkdir()
    nodes = Nodes()
    try:
        nodes.add("first", cpus=0)
        connect(nodes.address)
        nodes.add_without(storage, "second")
        nodes.add_without(storage, "third")
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def test_nodes_that_only_share_a_uri_go_on_with_each_others_trials(
    apart: Nodes, tmp_path: Path, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"file://{tmp_path}/shared"
    config = make_config(
        apart, tmp_path, sample, 4, f"search.checkpoint_uri={uri}", "search.finalists=1"
    )
    monkeypatch.setattr(driver, "run_trial", observed_trial)
    search = Watched(config)

    def kill() -> None:
        search.wait_for(epochs=4)
        apart.kill("third")

    check_whole(search.search(kill))
    trained = Counter(read_epochs(Path(os.environ[OBSERVED])))
    assert len(trained) == TRIALS * 4
    assert sum(trained.values()) <= TRIALS * 4 + 1, (
        "more than the epoch under way was trained again"
    )
    assert len(retrain(search.run, top_k=1)) == 2
    for fold in search.run.path.glob("folds/*/*"):
        assert {"model.safetensors", "metrics.json", "oof", "pictures"} <= {
            path.name for path in fold.iterdir()
        }
    check_unused(uri, "night")
