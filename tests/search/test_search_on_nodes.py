"""A real search over several Ray nodes on this machine: it spreads, outlives one, and uses a new one."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from search.config import SearchConfig, load_search_config
from search.driver import run_search
from search.ledger import read_trials
from search.results import Row
from search.run_folder import RunFolder
from tests.search.nodes import Nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRIALS = 5


def make_config(cluster: Nodes, folder: Path, data: Path, epochs: int = 4) -> SearchConfig:
    (folder / "space.yaml").write_text("optim.decoder_lr: {float: [1.0e-4, 3.0e-3], log: true}\n")
    return load_search_config(
        None,
        [
            f"epochs={epochs}", "batch_size=8", "patience=0", "data.image_size=64", "data.folds=2",
            "search.name=night", f"search.data_dir={data}", f"search.space={folder}/space.yaml",
            f"search.trials={TRIALS}", f"search.grace_period={epochs}", "search.cpus_per_trial=1",
            f"search.storage={folder}/runs", f"search.tracking_uri=sqlite:///{folder}/mlflow.db",
            f"search.address={cluster.address}", "search.max_failures=0", "search.min_free_gb=0",
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

    def epochs(self) -> int:
        trials = read_trials(self.run.study_db, self._config.search.name)
        return sum(len(trial.intermediate_values) for trial in trials)

    def search(self, meddle: Callable[[], None], after_epochs: int) -> list[Row]:
        """The rows of the search; `meddle` is called once so many epochs are reported."""
        met = threading.Event()

        def watch() -> None:
            while not self.run.path.is_dir() or self.epochs() < after_epochs:
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


def test_a_search_spreads_over_two_nodes(cluster: Nodes, tmp_path: Path, sample: Path) -> None:
    search = Watched(make_config(cluster, tmp_path, sample))
    check_whole(search.search(lambda: None, after_epochs=1))
    attempts = search.attempts()
    assert len(attempts) == TRIALS
    assert len({node for [node] in attempts.values()}) == 2


def test_a_search_of_three_nodes_ends_whole_when_one_dies_in_the_middle(
    cluster: Nodes, tmp_path: Path, sample: Path
) -> None:
    """Without a failure to spare: a lost node is no crash of its trial."""
    cluster.add("third")
    search = Watched(make_config(cluster, tmp_path, sample))
    check_whole(search.search(lambda: cluster.kill("third"), after_epochs=4))
    attempts = search.attempts()
    assert len({node for nodes in attempts.values() for node in nodes}) == 3
    moved = [nodes for nodes in attempts.values() if len(nodes) == 2]
    assert len(moved) <= 1  # the one that the third node was training, if any
    assert all(first != second for first, second in moved)


def test_a_node_that_joins_is_used(cluster: Nodes, tmp_path: Path, sample: Path) -> None:
    """The epochs are many so that the first trials last longer than a node takes to come up."""
    search = Watched(make_config(cluster, tmp_path, sample, epochs=30))
    check_whole(search.search(lambda: cluster.join("third"), after_epochs=1), epochs=30)
    assert len({node for [node] in search.attempts().values()}) == 3
