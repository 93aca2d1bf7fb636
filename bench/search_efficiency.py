"""How many epochs a search needs: ours against others, on simulated clocks (`make bench-search`).

What random search has found after RANDOM_BUDGET full trainings is the reference; what is measured is in
bench/search_outcomes.py.

The policy's settings were chosen on every other data set, from the first on; what is reported comes from
the rest. `python -m bench.search_efficiency` runs all of that, goes on after a kill, writes the table
of docs/performance.md and keeps its bars for `make bench`; `python -m bench search` runs a part. After
a change of ours the others, which are most of the work, are not run again.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from bench import campaigns
from bench.comparison import Bar, Comparison, UnequalResultsError
from bench.fast_tpe import speed_up_tpe
from bench.lcbench import EPOCHS, Task, folder, load_space, load_tasks
from bench.policies import POLICIES, SETTINGS, LedgerInMemory
from bench.search_outcomes import (
    BUDGETS,
    RANDOM_BUDGET,
    Outcome,
    comparisons,
    page_table,
)
from bench.simulation import Simulation
from search.config import SearchConfig
from search.ledger import Ledger, create_ledger
from trashseg.files import write_text

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "build" / "search_efficiency"  # outcomes of the campaign, a file for each job
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- begin: make bench-search -->", "<!-- end: make bench-search -->"
WHAT = "search efficiency"
# of bench/, what decides an outcome
SIMULATED_BY = (
    "fast_tpe", "lcbench", "policies", "search_efficiency", "search_outcomes", "simulation",
)  # fmt: skip
WORKERS = (1, 4, 16, 64)
SEEDS = 20
PART_TASKS, PART_SEEDS, PART_WORKERS = 3, 2, (1, 16)  # of `python -m bench search`


@dataclass(frozen=True)
class Job:
    """The searches of one policy with so many workers on one data set, a seed after the other."""

    task: str
    policy: str
    workers: int
    seeds: int
    targets: tuple[float, ...] = ()
    """By seed, what ours is to be worth: what random search came to. Of ours alone."""

    @property
    def file(self) -> Path:
        name = f"{self.task}_{self.policy}_{self.workers}_workers_{self.seeds}_seeds.json"
        return KEPT / code(self.policy) / name.replace(" ", "_")


def code(policy: str) -> str:
    """A name of what decides the policy's outcomes: they are kept for it alone."""
    files = {
        *(ROOT / "bench" / f"{name}.py" for name in SIMULATED_BY),
        ROOT / "search" / "space.py",
        ROOT / "requirements.lock",
    }
    if policy == "ours":
        files |= {*(ROOT / "search").glob("*.py"), SETTINGS}
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()[:12]


def run() -> list[Comparison]:
    """A part of the campaign, with its code."""
    if not folder().is_dir():
        missing = f"{folder()} is not there"
        return [Comparison(WHAT, "epochs", Bar("<=", 0.15), note=missing)]
    check_equal()
    tasks = load_tasks()[1::2][:PART_TASKS]
    note = f"a part of `make bench-search`: {len(tasks)} of 17 data sets, {PART_SEEDS} of {SEEDS} seeds"
    return comparisons(campaign(tasks, PART_WORKERS, PART_SEEDS), f"{WHAT}, a part", note)


def check_equal() -> None:
    """The ledger of the simulation proposes what a search's own on disk does, after the same results."""
    task, space = Task(load_tasks()[0]), load_space()
    config = SearchConfig.model_validate({"epochs": EPOCHS, "search": {"startup_trials": 3}})
    with tempfile.TemporaryDirectory() as scratch:
        create_ledger(Path(scratch) / "study.db", config.search.name)
        ledgers = [
            Ledger(Path(scratch) / "study.db", config, space),
            LedgerInMemory(Path(config.search.name), config, space),
        ]
        for _ in range(8):
            names = [ledger.propose() for ledger in ledgers]
            points = [ledger.points[name] for ledger, name in zip(ledgers, names, strict=True)]
            if points[0] != points[1]:
                raise UnequalResultsError(f"on disk {points[0]}, in memory {points[1]}")
            score = float(task.curve(points[0]).max())
            for ledger, name in zip(ledgers, names, strict=True):
                ledger.record_epoch(name, EPOCHS, score)
                ledger.end(name, "finished", {})


# --- simulations -----------------------------------------------------------------------------------


def campaign(
    tasks: Sequence[str], workers: Sequence[int], seeds: int, keep: bool = False
) -> list[Outcome]:
    """Of all policies; ours comes last, because random search says what it is to be worth."""
    others = [name for name in POLICIES if name != "ours"]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        jobs = [Job(*each, seeds) for each in product(tasks, others, workers)]
        outcomes = simulate_all(pool, jobs, keep)
        found = {
            (one.task, one.workers, one.seed): one.worth[RANDOM_BUDGET]
            for one in outcomes
            if one.policy == "random"
        }
        jobs = [
            Job(task, "ours", count, seeds, tuple(found[task, count, n] for n in range(seeds)))
            for task, count in product(tasks, workers)
        ]
        return outcomes + simulate_all(pool, jobs, keep)


def simulate_all(pool: Executor, jobs: Sequence[Job], keep: bool) -> list[Outcome]:
    """Of every job, each CPU one at a time; those that were kept are not run again."""
    outcomes: list[Outcome] = []
    known = [job for job in jobs if keep and job.file.is_file()]
    for job in known:
        outcomes += TypeAdapter(list[Outcome]).validate_json(job.file.read_text())
    missing = [job for job in jobs if job not in known]
    for job, found in zip(missing, pool.map(simulate, missing), strict=True):
        outcomes += found
        if keep:
            job.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(job.file, json.dumps([asdict(one) for one in found]))
            print(f"{job.task}, {job.policy}, {job.workers} workers: done", flush=True)
    return outcomes


def simulate(job: Job) -> list[Outcome]:
    """In a process of its own."""
    speed_up_tpe()
    task = Task(job.task)
    budget = RANDOM_BUDGET if job.policy == "random" else max(BUDGETS)
    targets = job.targets or [None] * job.seeds
    return [
        play(task, job.policy, job.workers, seed, budget, target)
        for seed, target in enumerate(targets)
    ]


def play(
    task: Task, name: str, workers: int, seed: int, budget: int, target: float | None = None
) -> Outcome:
    """One search for `budget` full trainings, or until it is worth `target`, but for no longer than
    random search has."""
    worth: dict[int, float] = {}
    reached: int | None = None
    for epochs, value in follow(task, name, workers, seed):
        if target is not None and reached is None and value >= target:
            reached = epochs
        if epochs % EPOCHS == 0 and (
            epochs // EPOCHS in BUDGETS or epochs == RANDOM_BUDGET * EPOCHS
        ):
            worth[epochs // EPOCHS] = value
        over = epochs >= budget * EPOCHS and (target is None or reached is not None)
        if over or epochs >= RANDOM_BUDGET * EPOCHS:
            break
    return Outcome(task.name, name, workers, seed, worth, reached)


def follow(task: Task, name: str, workers: int, seed: int) -> Iterator[tuple[int, float]]:
    """After each epoch of a search: how many there were, what the incumbent is worth."""
    policy = POLICIES[name](load_space(), seed)
    random = np.random.default_rng([seed, workers])
    trained = np.arange(1, policy.epochs + 1)
    simulation = Simulation(
        policy.searcher,
        policy.scheduler,
        curve_of=lambda point: task.curves([point], trained)[0],
        workers=workers,
        durations=lambda: float(random.uniform(0.8, 1.2)),
    )
    best, incumbent, worth = -1.0, "", 0.0
    for report in simulation.run():
        if report.score > best:
            best = report.score
            if report.trial.trial_id != incumbent:
                incumbent = report.trial.trial_id
                worth = float(task.curve(report.trial.point).max())
        yield report.epochs, worth


def main() -> int:
    """The whole campaign: the data sets that nothing was chosen on."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="searches of each kind")
    seeds = parser.parse_args().seeds
    check_equal()
    tasks = load_tasks()[1::2]
    outcomes = campaign(tasks, WORKERS, seeds, keep=True)
    note = f"{len(tasks)} data sets, {seeds} seeds each"
    campaigns.keep("make bench-search", comparisons(outcomes, WHAT, note))
    shown = f"{note}.\n\n{page_table(outcomes)}"
    print(shown)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    write_text(PAGE, f"{before}{BEGIN}\n{shown}{END}{rest.partition(END)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
