"""What Ray shows of a real search: its numbers at the node's metrics endpoint, its trials by name."""

import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from ray.util.state import list_actors

from search import driver
from search.config import SearchConfig
from search.results import Row
from search.run_folder import RunFolder
from tests.search import shown_trial

pytestmark = pytest.mark.slow

SECONDS = 120.0  # that a busy machine may need


@dataclass(frozen=True)
class Searched:
    run: RunFolder
    rows: list[Row]
    dashboard: str


@pytest.fixture(scope="module")
def searched(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    """Two trials of two epochs, one after the other in the same worker; Ray is still there."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "space.yaml").write_text("optim.decoder_lr: {choice: [1.0e-3, 3.0e-3]}")
    config = SearchConfig.model_validate(
        {
            "epochs": 2, "batch_size": 4, "data": {"image_size": 32, "folds": 2},
            "model": {"weights": "none"},
            "search": {
                "name": "night", "data_dir": str(sample), "space": str(folder / "space.yaml"),
                "trials": 2, "grace_period": 2, "storage": str(folder / "runs"),
                "tracking_uri": f"sqlite:///{folder}/mlflow.db",
            },
        }
    )  # fmt: skip
    context = ray.init(
        address="local", num_cpus=1, include_dashboard=True, log_to_driver=False,
        _system_config={"metrics_report_interval_ms": 1000},
    )  # fmt: skip
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(driver, "run_trial", shown_trial.noted_trial)
            yield Searched(*driver.run_search(config), f"http://{context.dashboard_url}")
    finally:
        ray.shutdown()


def metric(name: str) -> dict[str, float]:
    """{run, state or metric by name: value} of what the node's endpoint tells of the gauge."""
    [node] = ray.nodes()  # type: ignore[no-untyped-call]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=SECONDS) as response:
        text = response.read().decode()
    found = {}
    for tags, value in re.findall(rf"^{name}{{(.*)}} (\S+)$", text, re.MULTILINE):
        told = dict(re.findall(r'(\w+)="([^"]*)"', tags))
        key = " ".join(told[tag] for tag in ("run", "state", "metric") if told.get(tag))
        found[key] = float(value)
    return found


def test_the_search_is_among_rays_metrics(searched: Searched) -> None:
    best = max(row.miou for row in searched.rows if row.miou is not None)
    ended = {"night finished": 2.0, "night open": 0.0, "night to_come": 0.0}
    deadline = time.monotonic() + SECONDS
    while True:  # the driver tells its node once a second
        trials = metric("ray_trashseg_trials")
        if ended.items() <= trials.items() or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert trials == {**ended, "night pruned": 0.0, "night failed": 0.0}
    assert metric("ray_trashseg_best_score") == {"night miou": pytest.approx(best)}
    [(run, pace)] = metric("ray_trashseg_epochs_per_second").items()
    assert run == "night"
    assert pace > 0


def test_a_worker_is_called_by_its_trial_while_it_trains(searched: Searched) -> None:
    lines = shown_trial.noted_file(searched.run.path / "trials").read_text().splitlines()
    processes, titles = zip(*(line.split(" ", maxsplit=1) for line in lines), strict=True)
    assert titles == (
        "ray::trashseg night trial_000 fold 0", "ray::trashseg night trial_000 fold 0",
        "ray::trashseg night trial_001 fold 0", "ray::trashseg night trial_001 fold 0",
    )  # fmt: skip
    assert len(set(processes)) == 1  # the actor was reused


def test_actors_are_called_by_the_search(searched: Searched) -> None:
    actors = list_actors(address=searched.dashboard, detail=True)
    assert {actor.repr_name for actor in actors if actor.class_name == "ImplicitFunc"} == {
        "trashseg night"
    }
