"""Searches that are killed at random moments, taken up again, and compared with one left alone.

`python -m tests.faults.campaign --kills 60 --seed 0` is the long campaign (`make faults`): some searches
side by side, because most of their time they wait for Ray to notice what it has lost.
"""

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml
from mlflow import MlflowClient
from optuna.trial import TrialState

from search.ledger import read_trials
from search.results import finished_trials
from search.run_folder import RunFolder
from search.rungs import rung_epochs
from tests.faults.observed_trial import (
    HELD,
    OBSERVED,
    let_go_file,
    read_epochs,
    waits_file,
)
from tests.tiny import TINY_MODEL
from trashseg.data.sample import write_sample

ROOT = Path(__file__).parent.parent.parent
TARGETS = ("driver", "worker", "raylet", "everything")
SIDE_BY_SIDE = 4  # searches of the long campaign
PATIENCE = 300.0  # seconds for what takes a few, on a machine that is busy
SPACE = """
loss.name: {choice: [cross_entropy, dice]}
loss.label_smoothing: {float: [0.0, 0.1], when: {loss.name: [cross_entropy]}}
optim.decoder_lr: {float: [1.0e-5, 3.0e-3], log: true}
"""


def search_tree(folder: Path, name: str, trials: int, cpus_per_trial: int) -> dict[str, object]:
    """A search that takes seconds: 20 scenes of 64 px."""
    return {
        "epochs": 4,
        "batch_size": 8,
        "data": {"image_size": 64, "folds": 2},
        "model": TINY_MODEL,
        "search": {
            "name": name,
            "data_dir": str(folder / "sample"),
            "space": str(folder / "space.yaml"),
            "storage": str(folder / "runs"),
            "tracking_uri": f"sqlite:///{folder}/{name}.mlflow.db",
            "trials": trials,
            "startup_trials": 3,
            "grace_period": 1,
            "reduction_factor": 2,  # rungs at epochs 1 and 2
            "cpus_per_trial": cpus_per_trial,
            "max_failures": 20,  # kills of workers are crashes
            "min_free_gb": 0.0,
            "seed": 3,
        },
    }


@dataclass
class Search:
    """One search under fire, as a user runs it: a command, and the same command with --resume.

    One that is `held` does not train its last trial, so does not end, before `finish`.
    """

    folder: Path
    name: str
    trials: int
    at_a_time: int = 1
    held: bool = False
    seed: int = 0
    """Of the moments and targets of its kills."""
    kills: Counter[str] = field(default_factory=Counter)
    process: "subprocess.Popen[str] | None" = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder / "runs" / self.name)

    @property
    def observed(self) -> Path:
        return self.folder / f"{self.name}.epochs"

    def start(self) -> None:
        config = self.folder / f"{self.name}.yaml"
        cpus = max(1, len(os.sched_getaffinity(0)) // self.at_a_time)
        tree = search_tree(self.folder, self.name, self.trials, cpus)
        config.write_text(yaml.safe_dump(tree))
        again = ["--resume"] if self.run.path.is_dir() else []
        waits_file(self.observed).unlink(missing_ok=True)
        with (self.folder / f"{self.name}.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.observed_search", "search",
                 "--config", str(config), *again],
                cwd=ROOT, stdout=log, stderr=log, start_new_session=True, text=True,
                env={
                    **os.environ, OBSERVED: str(self.observed), "PYTHONPATH": str(ROOT),
                    "TRASHSEG_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "1",
                    HELD: f"trial_{self.trials - 1:03d}" if self.held else "",
                },
            )  # fmt: skip

    def finish(self) -> None:
        """Start it if need be, leave it alone, and see it end well."""
        let_go_file(self.observed).touch()
        if self.process is None:
            self.start()
        assert self.process is not None
        code = self.process.wait(PATIENCE)
        assert code == 0, f"exit code {code}:\n{self.log()[-3000:]}"
        self.process = None

    def ended_trials(self) -> int:
        """How many the leaderboard has; a command that does not come to its end writes none."""
        if not self.run.leaderboard.is_file():
            return 0
        with self.run.leaderboard.open() as file:
            return sum(1 for _ in csv.DictReader(file))

    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()

    def wait_for_epochs(self, count: int) -> bool:
        """Whether `count` more epochs, or all but those of a held trial, were trained before the
        command ended."""
        assert self.process is not None
        goal = len(read_epochs(self.observed)) + count
        while self.process.poll() is None:
            if len(read_epochs(self.observed)) >= goal or waits_file(self.observed).exists():
                return True
            time.sleep(0.02)
        return False

    def strike(self, kills: int, targets: tuple[str, ...] = TARGETS) -> None:
        """Kill it so often, each time at a random moment, or until it has ended, which a held one does
        not."""
        struck = 0
        while struck < kills:
            if self.process is None:
                self.start()
            if not self._wait():
                assert not self.held, f"ended by itself:\n{self.log()[-3000:]}"
                return
            struck += self.kill(self.random.choice(targets))

    def _wait(self) -> bool:
        """Until a random moment: of the start, or within the work of some epochs from now; whether it
        still runs then."""
        assert self.process is not None
        if self.random.random() < 0.25:
            time.sleep(self.random.uniform(0.0, 12.0))
        elif not self.wait_for_epochs(self.random.randint(1, 3)):
            return False
        time.sleep(self.random.uniform(0.0, 0.6))
        return self.process.poll() is None

    def kill(self, target: str) -> bool:
        """Kill it now; False where there is nothing to kill (yet, or any more)."""
        assert self.process is not None
        if self.process.poll() is not None:
            return False
        driver = psutil.Process(self.process.pid)
        family = [driver, *driver.children(recursive=True)]
        victims = [process for process in family if is_target(process, target, driver)]
        if not victims:
            return False
        for victim in victims:
            kill_hard(victim)
        self.kills[target] += 1
        if target != "worker":  # a search goes on when a worker dies
            self._bury(family)
        return True

    def _bury(self, family: list[psutil.Process]) -> None:
        """The command ends, and well only if every trial had; what it had started ends by itself."""
        assert self.process is not None
        code = self.process.wait(PATIENCE)
        assert code != 0 or self.ended_trials() == self.trials, self.log()[-3000:]
        _, alive = psutil.wait_procs(family, timeout=PATIENCE)
        assert not alive, f"outlived their search: {alive}"
        self.process = None


def is_target(process: psutil.Process, target: str, driver: psutil.Process) -> bool:
    if target == "driver":
        return process == driver
    if target == "everything":
        return True
    try:
        title = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    if target == "raylet":
        return Path(title.split(" ")[0]).name == "raylet"
    # a Tune trial before its training and in it; the idle ones are ray::IDLE
    return title.startswith(("ray::ImplicitFunc", "ray::trashseg"))


def kill_hard(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):  # it went with one that was killed before
        process.send_signal(signal.SIGKILL)


# --- what must be true at the end ------------------------------------------------------------------


def check(search: Search) -> None:
    """No trial lost or repeated, no epoch trained twice, rungs as reported, MLflow in order."""
    trials = read_trials(search.run.study_db, search.name)
    names = [trial.user_attrs["trial_id"] for trial in trials]
    assert names == [f"trial_{number:03d}" for number in range(search.trials)]
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    assert not (other := [trial.user_attrs for trial in trials if trial.state not in ended]), other
    with search.run.leaderboard.open() as file:
        assert sorted(row["trial_id"] for row in csv.DictReader(file)) == names

    epochs = Counter(read_epochs(search.observed))
    assert max(epochs.values()) == 1, [epoch for epoch, times in epochs.items() if times > 1]
    for trial in trials:
        done = sorted(trial.intermediate_values)
        assert done == list(range(1, len(done) + 1))
        assert done[-1] == 4 or trial.state == TrialState.PRUNED
    for milestone in rung_epochs(search.run.config):
        arrivals = [t.user_attrs["rungs"][str(milestone)] for t in trials
                    if milestone in t.intermediate_values]  # fmt: skip
        assert sorted(arrivals) == list(range(len(arrivals)))
    check_mlflow(search, {t.user_attrs["trial_id"]: len(t.intermediate_values) for t in trials})
    kept = {folder.parent.name for folder in search.run.path.glob("trials/*/fold_*")}
    best = finished_trials(search.run)[: search.run.config.search.finalists]
    assert kept == {name for name, _ in best}, "weights are those of the finalists"


def check_mlflow(search: Search, epochs: dict[str, int]) -> None:
    client = MlflowClient(search.run.config.search.tracking_uri)
    experiment = client.get_experiment_by_name("trashseg")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs].count("RUNNING") == 0
    by_kind = Counter(run.data.tags["kind"] for run in runs)
    assert by_kind == {"search": 1, "trial": search.trials}
    for run in runs:
        if run.data.tags["kind"] == "trial":
            steps = [m.step for m in client.get_metric_history(run.info.run_id, "miou")]
            assert sorted(steps) == list(range(1, epochs[run.data.tags["mlflow.runName"]] + 1))


# --- the campaign ----------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """Photos and a space, for all searches in the folder."""
    write_sample(folder / "sample", images=20, size=64, seed=0)
    (folder / "space.yaml").write_text(SPACE)


def leaderboard_left_alone(folder: Path, trials: int) -> str:
    search = Search(folder, f"alone_{trials}", trials)
    search.finish()
    check(search)
    return search.run.leaderboard.read_text()


def fight(folder: Path, number: int, seed: int, expected: str) -> Counter[str]:
    """One search from its start to its end; returns its kills."""
    search = Search(
        folder, f"search_{number:03d}", 5, at_a_time=1 if number % 3 else 2,
        seed=1000 * seed + number,
    )  # fmt: skip
    search.strike(search.random.randint(1, 4))
    search.finish()
    check(search)
    if search.at_a_time == 1:
        assert search.run.leaderboard.read_text() == expected
    print(f"{search.name}: {search.at_a_time} at a time, {dict(search.kills)}", flush=True)
    return search.kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    total: Counter[str] = Counter()
    fought = 0
    with (
        tempfile.TemporaryDirectory(prefix="trashseg-faults-") as scratch,
        ThreadPoolExecutor(SIDE_BY_SIDE) as pool,
    ):
        folder = Path(scratch)
        prepare(folder)
        expected = leaderboard_left_alone(folder, trials=5)
        while sum(total.values()) < asked.kills:
            numbers = range(fought + 1, fought + SIDE_BY_SIDE + 1)
            for kills in pool.map(lambda n: fight(folder, n, asked.seed, expected), numbers):
                total += kills
            fought += SIDE_BY_SIDE
    print(
        f"{sum(total.values())} kills {dict(total)} over {fought} searches: 0 trials lost, "
        "0 repeated, 0 epochs trained twice, 0 MLflow runs orphaned; the leaderboards of those "
        "with one trial at a time equal the undisturbed one to the byte"
    )


if __name__ == "__main__":
    main()
