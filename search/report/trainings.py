"""The final choice on the page: what was trained on which fold, and the winner against hand tuning.

Everything is compared as in search/significance.py: paired by fold and seed, corrected for the training
photos that folds share, and for the number of configurations that are compared.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from search.config import SearchConfig
from search.kept_weights import FROM_SEARCH
from search.ledger import HAND_TUNED
from search.report.trials import TrialFacts, by_rank
from search.results import Standing
from search.run_folder import RunFolder
from search.significance import Comparison, Scores, compare, standard_error

WITH_SEED = re.compile(r"(trial_\d+)_seed_(\d+)")  # folders of search/retrain.py


@dataclass(frozen=True)
class Training:
    """One fold of a configuration, whole or under way."""

    variant: str
    """The trial, or trial_000 with an addition."""
    fold: int
    seed: int
    scores: Mapping[str, Any] | None
    """metrics.json, on the fold's photos at their own size; None while it is not whole."""
    epochs: int
    seconds: float
    host: str
    """Of the machine that ended it, empty where the run does not know."""
    device: str
    from_search: bool
    """Whether it is what the search had trained as a trial: its time is counted there."""


@dataclass(frozen=True)
class Contender:
    """A configuration that was trained on several folds."""

    name: str
    hand_tuned: bool
    scores: dict[str, float]
    """The search's metric, by "fold/seed"."""
    mean: float
    standard_error: float | None
    """Corrected for the overlap; None of a single training."""
    against_hand: Comparison | None
    """On the folds and seeds that both have."""
    against_hand_unseen: Comparison | None
    """The same without the folds on which the search compared trials."""


@dataclass(frozen=True)
class Outcome:
    """Who won, and by how much."""

    winner: str | None
    """The first of the leaderboard; None before a trial has finished."""
    contenders: tuple[Contender, ...]
    """The finalists in their order, then hand tuning, where it was trained on folds too."""

    def contender(self, name: str | None) -> Contender | None:
        return next((each for each in self.contenders if each.name == name), None)


def read_trainings(run: RunFolder) -> tuple[Training, ...]:
    """All that lie in runs/NAME/folds, by variant, seed and fold."""
    seed = run.config.seed
    folders = [path for path in (run.path / "folds").glob("*/*") if path.name.isdecimal()]
    begun = [path for path in folders if (path / "history.jsonl").is_file()]
    found = [_training(path, seed) for path in begun]
    return tuple(sorted(found, key=lambda t: (t.variant, t.seed, t.fold)))


def _training(folder: Path, seed: int) -> Training:
    name = folder.parent.name
    seeded = WITH_SEED.fullmatch(name)
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    scores, place = (read_json(folder / file) for file in ("metrics.json", "place.json"))
    return Training(
        variant=seeded[1] if seeded else name,
        fold=int(folder.name),
        seed=int(seeded[2]) if seeded else seed,
        scores=scores or None,
        epochs=len(history),
        seconds=sum(epoch["seconds"] for epoch in history),
        host=place.get("hostname", ""),
        device=place.get("device", ""),
        from_search=(folder / FROM_SEARCH).is_file(),
    )


def read_json(file: Path) -> dict[str, Any]:
    """Empty where there is none."""
    return dict(json.loads(file.read_text())) if file.is_file() else {}


# --- who won -----------------------------------------------------------------------------------


def outcome(
    trainings: Sequence[Training],
    trials: Sequence[TrialFacts],
    standings: Sequence[Standing],
    config: SearchConfig,
) -> Outcome:
    winner = next((t.name for t in by_rank(trials) if t.state == "finished"), None)
    scores = scores_by_variant(trainings, config.metric)
    names = [standing.trial_id for standing in standings]
    if not names and winner in scores:
        names = [str(winner)]
    names = [name for name in dict.fromkeys([*names, HAND_TUNED]) if name in scores]
    chosen = {name: scores[name] for name in names}
    overlap = 1 / (config.data.folds - 1)
    unseen = {name: without(of, config.search.folds) for name, of in chosen.items()}
    against, against_unseen = (against_hand(of, overlap) for of in (chosen, unseen))
    return Outcome(
        winner,
        tuple(
            Contender(
                name=name,
                hand_tuned=name == HAND_TUNED,
                scores={f"{fold}/{seed}": score for (fold, seed), score in of.items()},
                mean=fmean(of.values()),
                standard_error=standard_error(list(of.values()), overlap),
                against_hand=against.get(name),
                against_hand_unseen=against_unseen.get(name),
            )
            for name, of in chosen.items()
        ),
    )


def scores_by_variant(trainings: Sequence[Training], metric: str) -> dict[str, Scores]:
    """The metric of each whole training, by fold and seed."""
    found: dict[str, dict[tuple[int, int], float]] = {}
    for training in trainings:
        if training.scores is not None:
            pair = training.fold, training.seed
            found.setdefault(training.variant, {})[pair] = float(training.scores[metric])
    return dict(found)


def without(scores: Scores, folds: Sequence[int]) -> Scores:
    return {pair: score for pair, score in scores.items() if pair[0] not in folds}


def against_hand(scores: Mapping[str, Scores], overlap: float) -> dict[str, Comparison]:
    return compare(scores, HAND_TUNED, overlap) if HAND_TUNED in scores else {}
