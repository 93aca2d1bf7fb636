"""Results as tables in the terminal, and what to type next."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from search.display import number, print_scores, wide_console
from search.results import Row, Standing
from search.run_folder import RunFolder
from search.status import Status

if TYPE_CHECKING:  # it loads torch, which most commands can do without
    from search.study_results import StudyResults, VariantResult

SHOWN_ROWS = 10
FEW_PARAMETERS = ("loss.name", "optim.name", "schedule.name", "model.arch", "model.encoder",
                  "optim.decoder_lr", "optim.encoder_lr")  # fmt: skip


def print_status(run: RunFolder, status: Status) -> None:
    """Whether it runs, trials by state, rungs, the best so far, how fast and how long."""
    console = wide_console()
    console.print(f"{run.path.name}: {activity(status)}", soft_wrap=True)
    console.print(", ".join(f"{count} {state}" for state, count in status.counts.items()))
    rungs = Table("rung (epoch)", "arrived", "went on", f"best {run.config.metric}")
    for rung in status.rungs:
        cells = (rung.epoch, rung.arrived, rung.went_on, rung.best)
        rungs.add_row(*map(number, cells))
    trials = Table("open", "epoch", f"best {run.config.metric}")
    for trial in status.open:
        trials.add_row(trial.name, str(trial.epoch), number(trial.score))
    for table in (rungs, trials):
        if table.row_count:
            console.print(table)
    if status.best:
        name, score = status.best
        console.print(
            f"best so far: {name} {number(score)}, hand-tuned {number(status.hand_tuned)}"
        )


def activity(status: Status) -> str:
    """Running or not, how fast, how long to go."""
    pace, hours = status.pace, status.hours_left
    speed = f", {pace.per_hour:.0f} epochs an hour" if pace and pace.epochs else ""
    if status.active:
        return f"running{speed}" + (f", about {duration(hours)} to go" if hours else "")
    if status.counts["open"] or status.counts["to come"]:
        return "not running; add --resume to its command and it goes on"
    return f"ended{speed}"


def duration(hours: float) -> str:
    minutes = math.ceil(hours * 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def print_leaderboard(run: RunFolder, rows: Sequence[Row]) -> None:
    """The best rows, the counts by state, and the next command."""
    columns = [path for path in FEW_PARAMETERS if any(path in row.point for row in rows)]
    table = Table(title=f"{run.path.name}: best of {len(rows)} trials")
    chosen = ["more folds"] if any(row.standing for row in rows) else []
    for heading in ("rank", "trial", "state", "epochs", "miou", "miou_image", *chosen, *columns):
        table.add_column(heading.rpartition(".")[0] if heading.endswith(".name") else heading)
    for rank, row in enumerate(rows[:SHOWN_ROWS]):
        table.add_row(
            str(rank),
            row.trial_id + (" (hand-tuned)" if row.hand_tuned else ""),
            row.state,
            str(row.epochs),
            number(row.miou),
            number(row.miou_image),
            *(final(row.standing) for _ in chosen),
            *(number(row.point.get(path)) for path in columns),
        )
    console = wide_console()
    console.print(table)
    counts = {
        state: sum(row.state == state for row in rows) for state in ("finished", "pruned", "failed")
    }
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()))
    console.print(f"leaderboard: {run.leaderboard}", soft_wrap=True)
    if counts["finished"]:
        console.print(f"next: {ensemble_command(run)}", soft_wrap=True)


def final(standing: Standing | None) -> str:
    """Mean +- standard error over the trainings of the final choice."""
    if standing is None:
        return "-"
    error = "" if standing.standard_error is None else f" ± {standing.standard_error:.2g}"
    return f"{standing.mean:.4g}{error} ({standing.runs})"


def ensemble_command(run: RunFolder) -> str:
    """What to type for the ensemble of `run`, from the current folder."""
    return command("ensemble", run)


def command(verb: str, run: RunFolder) -> str:
    storage = run.path.parent
    elsewhere = "" if storage == Path("runs").resolve() else f" --storage {storage}"
    return f"python launch.py {verb} --name {run.path.name}{elsewhere}"


def print_ensemble(run: RunFolder, metrics: Mapping[str, Any]) -> None:
    """Scores out of fold and on the test folder, and which were chosen."""
    columns = {f"config {k}": scores for k, scores in metrics["candidates"].items()}
    for split in ("oof", "test"):
        for kind, scores in (metrics[split] or {}).items():
            columns[f"{split} {kind}"] = scores
    columns["nested"] = metrics["nested"]
    print_scores(columns)
    console = wide_console()
    for step in metrics["steps"]:
        kept = "kept" if step["kept"] else "not kept"
        console.print(f"{step['step']}: {kept}: {step['why']}", soft_wrap=True)
    console.print(
        f"chosen out of fold: {metrics['chosen']}; quote the nested score", soft_wrap=True
    )
    console.print(
        f"masks, metrics.json, post.json and manifest.yaml: {run.ensemble}", soft_wrap=True
    )
    console.print(
        f"next: python launch.py predict --model {run.ensemble} --images DIR --out DIR",
        soft_wrap=True,
    )


def print_study(folder: Path, results: "StudyResults") -> None:
    """A row for each variant, the best first, and which differences are real."""
    folds, seeds = len(results.folds), len(results.seeds)
    table = Table(title=f"{folder.name}: {results.metric} on {folds} folds with {seeds} seeds")
    for heading in ("variant", "trainings", "mean", "spread", f"- {results.baseline}"):
        table.add_column(heading)
    for heading in ("standard error", "95 % interval", "p (Holm)", "verdict"):
        table.add_column(heading)
    for variant in sorted(results.variants, key=lambda variant: -(variant.mean or 0.0)):
        failed = f" ({variant.failed} failed)" if variant.failed else ""
        scores = (number(variant.mean), number(variant.spread))
        table.add_row(
            variant.name, f"{variant.trainings}{failed}", *scores, *_comparison(variant, results)
        )
    console = wide_console()
    console.print(table)
    console.print(f"spread: standard deviation of single trainings; {results.test}")
    console.print(f"study.csv and study.json: {folder}", soft_wrap=True)


def _comparison(variant: "VariantResult", results: "StudyResults") -> tuple[str, ...]:
    compared = variant.compared
    if compared is None:  # the baseline, or nothing to compare
        return "baseline" if variant.name == results.baseline else "-", "-", "-", "-", "-"
    ends = compared.interval
    return (
        f"{compared.difference:+.4f}",
        number(compared.standard_error),
        f"{ends[0]:+.4f} to {ends[1]:+.4f}" if ends else "-",
        number(compared.p_holm),
        compared.verdict,
    )
