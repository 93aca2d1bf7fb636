"""Trials: how soon one is at work, and what having one costs. `python -m bench.trials --all` measures
1,000 and 5,000 trials of both as well, in about an hour, and keeps that for `make bench`."""

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import campaigns
from bench.comparison import Bar, Comparison, UnequalResultsError, notes, table
from bench.orchestration import Orchestration, run_alone
from bench.trial_start import starts

EPOCHS = 3  # that a trial reports
PART = 200  # trials at the beginning and at the end whose cost is compared
Runs = dict[tuple[str, int], Orchestration]


def run() -> list[Comparison]:
    runs = orchestrate([("peer", 100), ("ours", 1000)])
    cost = compare_cost(runs["ours", 1000], runs["peer", 100], 100)
    return [*compare_starts(), cost, growth(runs, 1000), memory(runs, 1000)]


def run_all() -> list[Comparison]:
    sizes = (100, 1000, 5000)
    runs = orchestrate([(way, size) for size in sizes for way in ("peer", "ours")])
    costs = (compare_cost(runs["ours", size], runs["peer", size], size) for size in sizes)
    results = [*compare_starts(), *costs]
    for size in sizes[1:]:
        results += [growth(runs, size), growth(runs, size, "peer"), memory(runs, size)]
    return results


# --- how soon a trial is at work ---------------------------------------------------------------


def compare_starts() -> list[Comparison]:
    with tempfile.TemporaryDirectory(prefix="trashseg-bench-") as folder:
        warm = starts("warm", Path(folder))
        (fresh,) = starts("fresh", Path(folder))
    if {start.digest for start in warm} != {fresh.digest}:
        raise UnequalResultsError(
            "trials begin with other weights, or another batch, than a process"
        )
    ours = statistics.median(start.seconds for start in warm)
    what = "of the built-in scenes at 128 px; weights and batch bitwise equal"
    return [
        Comparison(
            "trials: start on a warm worker", "s", Bar("<", 0.3), ours,
            note=f"from the call of the trial's function to its first batch, {what}; the median of "
            f"{len(warm)}, two at a time",
        ),
        Comparison(
            "trials: start, warm against fresh", "s", None, ours, fresh.seconds,
            "the peer is a process of its own, from its beginning",
        ),
    ]  # fmt: skip


# --- what it costs to have one -----------------------------------------------------------------


def orchestrate(which: Sequence[tuple[str, int]]) -> Runs:
    """One after another; every trial must have reported every epoch."""
    runs = {(way, trials): run_alone(way, trials, EPOCHS) for way, trials in which}
    for (way, trials), done in runs.items():
        if (done.trials, done.reports) != (trials, trials * EPOCHS):
            raise UnequalResultsError(
                f"{way}: {done.trials} of {trials} trials ended, with {done.reports} epochs"
            )
    return runs


def compare_cost(ours: Orchestration, peer: Orchestration, trials: int) -> Comparison:
    """Of the first `trials` of both."""
    return Comparison(
        f"trials: orchestration, {trials:,} trials", "ms a trial", Bar("<", 2.0),
        1e3 * ours.per_trial(trials), 1e3 * peer.per_trial(trials),
        f"trials that do nothing but report {EPOCHS} epochs; ours with its study on disk and MLflow on "
        "sqlite, the peer is Ray Tune with its own OptunaSearch and ASHA, in memory, without MLflow; "
        f"after the last of {ours.trials:,} trials ours takes {ours.ending:.0f} s, after the last of "
        f"{peer.trials:,} the peer {peer.ending:.0f} s",
    )  # fmt: skip


def growth(runs: Runs, trials: int, way: str = "ours") -> Comparison:
    done, end = runs[way, trials], trials - 1
    return Comparison(
        f"trials: growth over {trials:,} trials" + (" of the peer" if way == "peer" else ""),
        "ms a trial",
        Bar("<", 1.3) if way == "ours" else None,
        1e3 * done.typical(end - PART, end),
        1e3 * done.typical(0, PART),
        f"the last {PART} trials of a run against the first {PART}, medians of every ten",
    )


def memory(runs: Runs, trials: int) -> Comparison:
    peer = runs.get(("peer", trials))
    return Comparison(
        f"trials: memory of the driver after {trials:,}", "MB", None,
        runs["ours", trials].rss / 1e6, peer.rss / 1e6 if peer else None,
        "resident set of the process that runs the search, torch and Ray included",
    )  # fmt: skip


if __name__ == "__main__":
    if "--all" in sys.argv:
        results = run_all()
        campaigns.keep("make bench-trials", results)
    else:
        results = run()
    print(table(results))
    print(notes(results), end="")
