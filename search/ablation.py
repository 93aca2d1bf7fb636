"""What helped: hand tuning against a search, and each addition alone. `launch.py results`.

One run holds all of it, so that nothing is trained twice:

1. the search; its first trial, the file's own configuration, is the hand tuning;
2. the final choice, and the best configurations on all folds;
3. hand tuning and the best configuration with more seeds; each addition on hand tuning, with one;
4. the ensemble: the equal vote of the best ones, or weights of all of these; its CRF and views tuned
   out of fold;
5. on the votes of hand tuning TTA, logit adjustment, one class for each object and the CRF alone; its
   seeds' vote, and that of the best configuration's; among all configurations their selection.

runs/NAME/results.json, results.md   what came out (search/ablation_results.py, ablation_page.py)

What is there is not trained again: after a kill the same call goes on.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from search.ablation_page import to_markdown
from search.ablation_results import Arm, Pair, Results, measure
from search.config import SearchConfig
from search.display import Display
from search.driver import check_training, run_search
from search.finals import choose_and_train
from search.ledger import HAND_TUNED
from search.post import tune_post
from search.results import Row, best_trials, read_standings
from search.resume import differences
from search.retrain import fold_model, is_trained, plan_folds, train_folds
from search.run_folder import RunFolder
from search.significance import TEST
from search.study import load_study
from search.study_results import Training
from search.tracking import Tracker
from trashseg.config import TrainConfig
from trashseg.data.coco import load_coco
from trashseg.data.folds import make_folds
from trashseg.device import local_resources
from trashseg.errors import NonFiniteError
from trashseg.files import write_json, write_text
from trashseg.fold_models import FoldModel
from trashseg.fold_scores import score_selection, score_steps, score_vote
from trashseg.member import member_scores

ADDITIONS = "additions"  # configs/studies
HAND, SEARCHED = "hand tuning", "search"
PLAIN = "hand tuning, one seed"
TOGETHER = "search + ensemble + tuned post-processing"


@dataclass(frozen=True)
class Effort:
    """How much is done beside the search."""

    seeds: int = 3
    """Of hand tuning and of the best configuration, from the configuration's own on."""
    top_k: int = 3
    """The search's configurations that are trained on all folds."""
    post_trials: int = 4
    """CRFs, and sets of views, that are tried."""
    post_photos: int = 200
    """Photos on which CRFs are compared, at most."""
    powers: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    """Of the logit adjustment that is tried alone."""


def run_ablation(config: SearchConfig, effort: Effort) -> tuple[RunFolder, Results]:
    """Do what is missing, and write what came out. Raises ConfigError before anything is trained, and
    as the search, the final choice and the ensemble do."""
    additions = read_additions(config.train)
    dataset = load_coco(Path(config.search.data_dir))
    for addition in additions.values():
        check_training(addition, dataset, make_folds(dataset, config.data))
    there = (Path(config.search.storage) / config.search.name).exists()
    run, rows = run_search(config, resume=there)
    with run.locked():
        choose_and_train(run, effort.top_k)
        trainings = plan(run, additions, effort.seeds)
        each_once = {training.model.folder: training.model for training in trainings}
        train_folds(run, longest_first(each_once.values()), survived=(NonFiniteError,))
    searched = complete(of_search(run, effort.top_k))
    library = complete([*searched, *each_once.values()])
    ensemble = tune_post(
        run,
        library,
        effort.post_trials,
        effort.post_photos,
        config.tta.views,
        map(str, config.tta.scales),
        test=None,
        start_with=len({model.candidate for model in searched}),
    )
    with run.locked():
        return run, write_down(run, effort, rows, trainings, ensemble)


def write_down(
    run: RunFolder,
    effort: Effort,
    rows: Sequence[Row],
    trainings: Sequence[Training],
    ensemble: Mapping[str, Any],
) -> Results:
    """Score what can be done to votes, compare everything, write it and tell MLflow."""
    config = run.config
    with (
        Display(run.path.name, 1, "table") as display,
        Tracker(run, config.search.tracking_uri, warn=display.line).closing() as tracker,
    ):
        display.line("what can be done to votes, each alone")
        tracker.start("results", "results", None, {"kind": "results"})
        arms = [
            *arms_of(trainings, config.train),
            *arms_of_votes(run, trainings, effort),
            together(ensemble, config.seed),
        ]
        results = summarise(arms, config, effort, rows, photos=len(run.dataset().photos))
        write_json(run.results_json, asdict(results))
        write_text(run.results_page, to_markdown(results))
        tracker.log_file("results", run.results_json)
        tracker.log_file("results", run.results_page)
        tracker.end("results", "finished")
    return results


def read_additions(config: TrainConfig) -> dict[str, TrainConfig]:
    """Each addition to `config`, by name."""
    study = load_study(ADDITIONS)
    variants = study.configs(config, where=f"study {ADDITIONS}")
    return {name: variant for name, variant in variants.items() if name != study.baseline}


# --- what is trained ---------------------------------------------------------------------------


def plan(run: RunFolder, additions: Mapping[str, TrainConfig], seeds: int) -> list[Training]:
    """Those of hand tuning and of the best configuration with each seed, those of the additions with
    the first, every fold of each."""
    config = run.config.train
    folds = range(config.data.folds)
    [(best, best_config)] = best_trials(run, 1)
    trainings = [
        Training(arm, seed, fold_model(run, rank, trial, of_arm, fold, seed))
        for seed in range(config.seed, config.seed + seeds)
        for rank, (arm, trial, of_arm) in enumerate(
            [(HAND, HAND_TUNED, config), (SEARCHED, best, best_config)]
        )
        for fold in folds
    ]
    for rank, (name, of_arm) in enumerate(additions.items(), start=2):
        trainings += [
            Training(
                name,
                config.seed,
                FoldModel(rank, fold, run.fold(f"{HAND_TUNED}_{name}", fold), of_arm),
            )
            for fold in folds
        ]
    return trainings


def longest_first(models: Iterable[FoldModel]) -> list[FoldModel]:
    """Those with pseudo labels, which train in rounds: the last of them would end alone."""
    return sorted(models, key=lambda model: model.config.pseudo.name == "none")


# --- what came out -----------------------------------------------------------------------------


def arms_of(trainings: Sequence[Training], config: TrainConfig) -> list[Arm]:
    """Hand tuning first; what training alone changes."""
    names = list(dict.fromkeys(training.variant for training in trainings))
    arms = []
    for name in names:
        own = [training for training in trainings if training.variant == name]
        found = {t.pair: member_scores(t.model.folder, t.model.config) for t in own}
        scores = {pair: of_pair for pair, of_pair in found.items() if of_pair is not None}
        arms.append(
            Arm(
                name,
                changes(config, own[0].model.config) or "the file's own settings",
                "training",
                scores,
                against=None if name == HAND else HAND,
                failed=len(found) - len(scores),
            )
        )
    return arms


def changes(config: TrainConfig, other: TrainConfig) -> str:
    """The settings in which `other` differs, but for its seed."""
    was, now = (of.model_dump(mode="json", exclude={"seed"}) for of in (config, other))
    return ", ".join(
        f"{key} {shown(after)}" for key, _, after in differences(was, now) if after is not None
    )


def shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def arms_of_votes(run: RunFolder, trainings: Sequence[Training], effort: Effort) -> list[Arm]:
    """Hand tuning with TTA, with logit adjustment, by object and with the CRF; of all configurations
    that are trained on every fold the best one, their equal vote and their selection. With the
    configuration's own seed; and the votes of the seeds of hand tuning, and of the best one."""
    config, dataset = run.config, run.dataset()
    folds, resources = run.folds(dataset), local_resources()
    own = [training for training in trainings if training.seed == config.seed]
    hand = [training.model for training in own if training.variant == HAND]
    steps = score_steps(
        hand,
        config.tta,
        effort.powers,
        config.crf,
        config.metric,
        dataset,
        folds,
        resources,
    )
    best = [model for model in of_search(run, effort.top_k) if model.config.seed == config.seed]
    library = complete([*(training.model for training in own), *best])
    chosen = score_selection(library, config.metric, dataset, folds, resources)
    count = len({model.candidate for model in library})
    equal = f"equal vote of {count}"
    voters = {
        arm: complete([training.model for training in trainings if training.variant == arm])
        for arm in (HAND, SEARCHED)
    }
    as_one = {
        f"{arm}, seeds": (
            score_vote(models, dataset, folds, resources),
            "its trainings with all seeds vote as one",
            HAND,
        )
        for arm, models in voters.items()
        if len({model.config.seed for model in models}) > 1
    }
    described = {
        PLAIN: (steps["plain"], "its votes as they are", None),
        "TTA": (steps["tta"], f"views {', '.join(config.tta.views)}", HAND),
        "logit adjustment": (
            steps["logit_adjustment"],
            "votes of rare classes raised, by a power chosen on the other folds",
            HAND,
        ),
        "by object": (steps["by_object"], "one class for each object", HAND),
        "CRF": (steps["crf"], "with the settings of the file", HAND),
        **as_one,
        f"best of {count}": (
            chosen["best_single"],
            "the best configuration by the other folds",
            HAND,
        ),
        equal: (
            chosen["equal_vote"],
            "all configurations that were trained on all folds",
            HAND,
        ),
        f"selection of {count}": (chosen["selection"], "greedy weights by the other folds", equal),
    }
    return [
        Arm(
            name, what, "votes", of_seed(scores.by_fold, config.seed), against, pooled=scores.pooled
        )
        for name, (scores, what, against) in described.items()
    ]


def of_search(run: RunFolder, top_k: int) -> list[FoldModel]:
    """All folds of the `top_k` best, and of those that have met them in the final choice, whether they
    are trained or not."""
    return plan_folds(run, max(top_k, len(read_standings(run))))


def complete(models: Sequence[FoldModel]) -> list[FoldModel]:
    """Each training once, without those of a seed of which a fold is missing; the seeds of one
    configuration are one candidate, numbered as they come."""
    by_seed: dict[Path, dict[int, FoldModel]] = {}
    for model in models:
        by_seed.setdefault(model.folder.parent, {})[model.fold] = model
    numbers: dict[str, int] = {}
    return [
        replace(model, candidate=numbers.setdefault(but_for_its_seed(model), len(numbers)))
        for of_seed in by_seed.values()
        if all(map(is_trained, of_seed.values()))
        for model in of_seed.values()
    ]


def but_for_its_seed(model: FoldModel) -> str:
    """Its configuration."""
    return model.config.model_dump_json(exclude={"seed"})


def together(ensemble: Mapping[str, Any], seed: int) -> Arm:
    """The whole: each fold's photos under what was chosen on the other folds."""
    by_fold = {int(fold): scores for fold, scores in ensemble["nested_by_fold"].items()}
    what = (
        "the search's best vote alike, unless weights of all that was trained are better; each fold's "
        "photos under what was chosen on the other folds"
    )
    return Arm(TOGETHER, what, "together", of_seed(by_fold, seed), HAND, pooled=ensemble["nested"])


def of_seed(by_fold: Mapping[int, Mapping[str, Any]], seed: int) -> dict[Pair, Mapping[str, Any]]:
    return {(fold, seed): scores for fold, scores in by_fold.items()}


def summarise(
    arms: Sequence[Arm], config: SearchConfig, effort: Effort, rows: Sequence[Row], photos: int
) -> Results:
    return Results(
        photos=photos,
        folds=config.data.folds,
        seeds=tuple(range(config.seed, config.seed + effort.seeds)),
        epochs=config.epochs,
        image_size=config.data.image_size,
        architecture=config.model.arch,
        encoder=config.model.encoder,
        trials=dict(Counter(row.state for row in rows)),
        test=TEST,
        arms=measure(arms, config.data.folds),
    )
