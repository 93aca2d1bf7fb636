"""The leaderboard, rebuilt from the study on disk whenever it is asked for."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.trial import FrozenTrial
from pydantic import TypeAdapter

from search.config import SearchConfig
from search.ledger import NAME, STATES, read_trials
from search.run_folder import RunFolder
from search.space import Point, Space, by_key, key_of
from trashseg.config import TrainConfig
from trashseg.config_file import write_yaml
from trashseg.errors import ConfigError
from trashseg.files import write_text


@dataclass(frozen=True)
class Standing:
    """What a trial's trainings for the final choice came to (search/finals.py), at the photos' size."""

    trial_id: str
    mean: float
    standard_error: float | None
    """None of a single training."""
    runs: int


@dataclass(frozen=True)
class Row:
    """One trial of the leaderboard; scores are those of its best epoch, None if it reported none."""

    trial_id: str
    state: str
    epochs: int
    miou: float | None
    miou_image: float | None
    point: Point
    hand_tuned: bool
    standing: Standing | None = None


def leaderboard(
    trials: Sequence[FrozenTrial], metric: str, standings: Sequence[Standing] = ()
) -> list[Row]:
    """Best first: those of the final choice in its order, then the other finished ones by score; then
    pruned ones, by how far they got, then by score; then failed ones. A trial that was stopped never
    outranks one that ran to its end."""
    places = {standing.trial_id: place for place, standing in enumerate(standings)}
    by_trial = {standing.trial_id: standing for standing in standings}
    rows = [
        replace(row, standing=by_trial.get(row.trial_id))
        for row in map(_row, (trial for trial in trials if trial.state in STATES))
    ]
    order = ("finished", "pruned", "failed")

    def key(row: Row) -> tuple[Any, ...]:
        score = getattr(row, metric)
        reached = row.epochs if row.state == "pruned" else 0
        place = places.get(row.trial_id, len(places))
        return order.index(row.state), place, -reached, -(score if score is not None else -1.0)

    return sorted(rows, key=key)


def read_standings(run: RunFolder) -> list[Standing]:
    """Best first; none before the final choice."""
    if not run.finals_json.is_file():
        return []
    return TypeAdapter(list[Standing]).validate_json(run.finals_json.read_text())


def _row(trial: FrozenTrial) -> Row:
    attributes = trial.user_attrs
    return Row(
        trial_id=attributes[NAME],
        state=STATES[trial.state],
        epochs=int(attributes.get("epoch", max(trial.intermediate_values, default=0))),
        miou=attributes.get("best_miou"),
        miou_image=attributes.get("best_miou_image"),
        point=by_key(trial.params),
        hand_tuned=bool(attributes.get("hand_tuned")),
    )


def write_results(
    run: RunFolder, trials: Sequence[FrozenTrial], config: SearchConfig, space: Space
) -> list[Row]:
    """leaderboard.csv, and best/RANK.yaml for every finished trial; returns the rows."""
    rows = leaderboard(trials, config.metric, read_standings(run))
    write_text(run.leaderboard, to_csv(rows, space))
    for rank, row in enumerate(row for row in rows if row.state == "finished"):
        write_yaml(run.best(rank), space.apply(config.train, row.point).model_dump(mode="json"))
    return rows


def best_trials(run: RunFolder, top_k: int) -> list[tuple[str, TrainConfig]]:
    """Name and configuration of the `top_k` best finished trials; ConfigError where there are fewer."""
    finished = finished_trials(run, read_standings(run))
    if len(finished) < top_k:
        raise ConfigError(
            f"{run.path}: has {len(finished)} finished trials, --top-k is {top_k}: lower it"
        )
    return finished[:top_k]


def finished_trials(
    run: RunFolder, standings: Sequence[Standing] = ()
) -> list[tuple[str, TrainConfig]]:
    """Name and configuration of all finished trials, best first; without `standings` by the search
    alone."""
    config, space = run.config, run.space
    trials = read_trials(run.study_db, config.search.name)
    return [
        (row.trial_id, space.apply(config.train, row.point))
        for row in leaderboard(trials, config.metric, standings)
        if row.state == "finished"
    ]


def summary(rows: Sequence[Row]) -> dict[str, float]:
    """Counts by state, and the scores of the best and of the hand-tuned trial, as far as there are."""
    numbers: dict[str, float] = {
        state: float(sum(row.state == state for row in rows)) for state in STATES.values()
    }
    shown = {"best": rows[:1], "hand_tuned": [row for row in rows if row.hand_tuned]}
    for name, trials in shown.items():
        for row in trials:
            scores = {f"{name}/miou": row.miou, f"{name}/miou_image": row.miou_image}
            numbers.update({key: value for key, value in scores.items() if value is not None})
    return numbers


def to_csv(rows: Sequence[Row], space: Space) -> str:
    """rank, trial_id, state, epochs, miou, miou_image, then one column per searched key; after the final
    choice, what it came to: mean, standard error, trainings."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    paths = list(dict.fromkeys(map(key_of, space.parameters)))
    first = ["rank", "trial_id", "state", "epochs", "miou", "miou_image"]
    chosen = any(row.standing for row in rows)
    final = ["final_mean", "final_se", "final_runs"] if chosen else []
    writer.writerow([*first, *paths, *final])
    for rank, row in enumerate(rows):
        scores = [_digits(row.miou), _digits(row.miou_image)]
        values = [row.point.get(path, "") for path in paths]
        writer.writerow(
            [
                rank,
                row.trial_id,
                row.state,
                row.epochs,
                *scores,
                *values,
                *_final(row)[: len(final)],
            ]
        )
    return table.getvalue()


def _final(row: Row) -> list[str]:
    if row.standing is None:
        return ["", "", ""]
    standing = row.standing
    return [_digits(standing.mean), _digits(standing.standard_error), str(standing.runs)]


def _digits(score: float | None) -> str:
    return "" if score is None else f"{score:.6f}"
