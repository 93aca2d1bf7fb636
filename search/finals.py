"""The final choice: the best trials of a search meet again, on more folds and with more seeds.

The best of many trials on one fold is partly the luckiest. So before the best `top_k` are trained on all
folds, the `search.finalists` best finished ones are compared in rounds: each round trains all that are
still in on one more fold, and after the folds with one more seed. Whoever is clearly worse than the
`top_k`-th is out; it ends when `top_k` are left, or after `search.final_rounds` rounds. Those trainings
are the ensemble's: for a trial that stays in, none is in vain (a further seed votes once all folds are
trained with it).

Clearly worse is what search/significance.py calls worse. The test is made anew after each round, so in
all a trial is put out by chance more often than its level says; it is then one of near equals.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import count, islice
from statistics import fmean

from search.ledger import read_trials
from search.results import Standing, finished_trials, write_results
from search.retrain import fold_model, plan_folds, train_folds
from search.run_folder import RunFolder
from search.significance import Scores, compare, standard_error
from trashseg.errors import NonFiniteError
from trashseg.files import write_json
from trashseg.fold_models import FoldModel
from trashseg.member import member_scores

Pair = tuple[int, int]  # fold and seed
Play = Callable[[Sequence[str], Pair], Mapping[str, float]]
"""Trains the named trials on a pair; the scores of those whose training did not diverge."""


def retrain(
    run: RunFolder, top_k: int, fold_count: int | None = None, seeds: int = 1
) -> list[FoldModel]:
    """`choose_and_train` while no other command changes the run."""
    with run.locked():
        return choose_and_train(run, top_k, fold_count, seeds)


def choose_and_train(
    run: RunFolder, top_k: int, fold_count: int | None = None, seeds: int = 1
) -> list[FoldModel]:
    """Choose the `top_k` best trials, train each on folds 0..fold_count-1 (default: on all folds) with
    `seeds` seeds.

    The run must be locked. Returns where all of them lie, and the folds with further seeds that the
    choice has trained. Raises ConfigError before anything is trained, and the first error of a fold,
    after stopping the others.
    """
    plan_folds(run, top_k, fold_count)  # are there as many?
    choose(run, top_k, fold_count or run.config.data.folds)
    models = plan_folds(run, top_k, fold_count, seeds)
    train_folds(run, models, why=f"the best {top_k}, {len(models)} folds")
    return models


def choose(run: RunFolder, top_k: int, fold_count: int) -> None:
    """Train the finalists on folds below `fold_count` until the best `top_k` are known, rank them first
    in the leaderboard. What exists is not trained again: after a kill the same call goes on.

    The run must be locked. Does nothing where there are no more finished trials than `top_k`.
    """
    config = run.config
    best = finished_trials(run)[: config.search.finalists]
    finalists = {name: (rank, name, of_trial) for rank, (name, of_trial) in enumerate(best)}
    if len(finalists) <= top_k:
        return

    def train(names: Sequence[str], pair: Pair) -> dict[str, float]:
        models = {name: fold_model(run, *finalists[name], *pair) for name in names}
        fold, seed = pair
        why = f"final choice, {len(names)} configurations on fold {fold} with seed {seed}"
        train_folds(run, list(models.values()), why=why, survived=(NonFiniteError,))
        scores = {name: member_scores(m.folder, m.config) for name, m in models.items()}
        return {name: float(of[config.metric]) for name, of in scores.items() if of is not None}

    pairs = islice(rounds(config.seed, fold_count), config.search.final_rounds)
    overlap = 1 / (config.data.folds - 1)  # one fold is validated on, the others are trained on
    standings = meet(list(finalists), pairs, top_k, overlap, train)
    write_json(run.finals_json, [asdict(standing) for standing in standings])
    write_results(run, read_trials(run.study_db, config.search.name), config, run.space)


def rounds(seed: int, folds: int) -> Iterator[Pair]:
    """All folds with `seed`, then all with the next one, and so on."""
    return ((fold, seed + more) for more in count() for fold in range(folds))


def meet(
    names: Sequence[str], pairs: Iterable[Pair], top_k: int, overlap: float, play: Play
) -> list[Standing]:
    """Play the pairs until `top_k` are left; best first, then who was put out, the last one first. Whose
    training diverges is not among them."""
    scores: dict[str, dict[Pair, float]] = {name: {} for name in names}
    left, out = list(names), list[str]()
    for pair in pairs:
        played = play(left, pair)
        left = [name for name in left if name in played]
        for name in left:
            scores[name][pair] = played[name]
        left.sort(key=lambda name: -fmean(scores[name].values()))
        worse = clearly_worse({name: scores[name] for name in left}, top_k, overlap)
        out = [name for name in left if name in worse] + out
        left = [name for name in left if name not in worse]
        if len(left) <= top_k:
            break
    return [standing(name, scores[name], overlap) for name in [*left, *out]]


def clearly_worse(ranked: Mapping[str, Scores], top_k: int, overlap: float) -> set[str]:
    """Who of `ranked`, best first, is worse than the `top_k`-th by more than chance."""
    if len(ranked) <= top_k:
        return set()
    last_in, *behind = list(ranked)[top_k - 1 :]
    compared = compare({name: ranked[name] for name in (last_in, *behind)}, last_in, overlap)
    return {name for name, comparison in compared.items() if comparison.verdict == "worse"}


def standing(name: str, scores: Scores, overlap: float) -> Standing:
    values = list(scores.values())
    return Standing(name, fmean(values), standard_error(values, overlap), len(values))
