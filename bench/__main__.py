"""Run the benches and write what came out: `python -m bench [NAME ...]`.

A run of all writes bench/results.json and the table of docs/performance.md; one of some only prints.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import machine
from bench.campaigns import kept
from bench.comparison import Comparison, notes, table

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- begin: make bench -->", "<!-- end: make bench -->"

Bench = Callable[[], list[Comparison]]


def _benches() -> dict[str, Bench]:
    """By name; imported when they run, because some of them measure what an import costs."""
    from bench import (
        crf,
        data,
        ensemble,
        gpu_ladder,
        losses,
        metrics,
        search_efficiency,
        selection,
        training_step,
        trials,
    )

    return {
        "data": data.run,
        "crf": crf.run,
        "training_step": training_step.run,
        "losses": losses.run,
        "gpu_ladder": gpu_ladder.run,
        "metrics": metrics.run,
        "ensemble": ensemble.run,
        "selection": selection.run,
        "trials": trials.run,
        "search": search_efficiency.run,
    }


def main(names: list[str]) -> int:
    benches = _benches()
    unknown = [name for name in names if name not in benches]
    if unknown:
        print(f"error: bench {unknown[0]}: there are {', '.join(benches)}", file=sys.stderr)
        return 2
    results: list[Comparison] = []
    for name, run in benches.items():
        if not names or name in names:
            started = time.monotonic()
            results += run()
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    results += kept(results) if not names else []
    print(table(results))
    print(notes(results), end="")
    if not names:
        RESULTS.write_text(json.dumps([one.as_json() for one in results], indent=1) + "\n")
        PAGE.write_text(with_table(PAGE.read_text(), results))
    return 0


def with_table(page: str, results: list[Comparison]) -> str:
    """The page with this run's machine and table between its two marks."""
    measured = f"{machine.describe()}.\n\n{table(results)}\n{notes(results)}"
    return between_marks(page, BEGIN, END, measured)


def between_marks(page: str, begin: str, end: str, measured: str) -> str:
    """The page with `measured` as what stands between two marks."""
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{measured}{end}{after}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
