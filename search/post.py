"""Parameters of the CRF and views for test-time augmentation, searched on votes out of fold.

Optuna proposes without looking at scores: a Sobol sequence over the CRF's parameters, and subsets of
the views. So one set of evaluations serves the choice of every fold and the final one, and no choice
knows of photos that it is judged on. A sampler that learns, such as TPE, would need a study, and CRF
runs, of its own for each fold.

The budget, with N proposals and P photos to compare them on (0.16 s for 512x512 pixels on one CPU):
N * P CRF runs, a few more because folds have photos of their own, and one for each photo of the run.
Where folds choose different weights or views, each refines a vote of its own: that is N * P for each
fold.
"""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna import Trial

from search.ensemble import check_test, vote_and_log
from search.run_folder import RunFolder
from trashseg.choice import Proposals
from trashseg.config import CrfConfig, TtaConfig
from trashseg.config_file import validate
from trashseg.data.coco import load_coco_test
from trashseg.errors import ConfigError
from trashseg.fold_models import FoldModel
from trashseg.member import member_scores
from trashseg.views import views_of

SEED = 0
NO_SCORE = 0.0  # what Optuna is told: these samplers do not learn
optuna.logging.set_verbosity(optuna.logging.WARNING)  # no line for every proposal
CRF_RANGES: dict[str, tuple[float, float]] = {  # log-uniform, about the winner's of 2021
    "gaussian_sxy": (1.0, 10.0),
    "gaussian_weight": (0.5, 10.0),
    "bilateral_sxy": (10.0, 120.0),
    "bilateral_srgb": (2.0, 20.0),
    "bilateral_weight": (0.5, 15.0),
}


def tune_post(
    run: RunFolder,
    models: Sequence[FoldModel],
    trials: int,
    photos: int,
    views: Iterable[str],
    scales: Iterable[str],
    test: Path | None,
    per_class: bool | None = None,
    start_with: int | None = None,
) -> dict[str, Any]:
    """Build the run's ensemble anew of `models`, with the best of `trials` CRFs and of the subsets of
    views and scales; returns its metrics. Weights `per_class` are tried, or not, as said here or else by
    the run. The first `start_with` configurations vote alike until selection finds better; else all.
    Trains nothing: ConfigError where a fold is missing."""
    offered = validate(
        TtaConfig, {"views": list(views), "scales": list(scales)}, where="--views, --scales"
    )
    test_dataset = load_coco_test(test) if test else None
    dataset = run.dataset()
    check_test(dataset, test_dataset)
    for model in models:
        if member_scores(model.folder, model.config) is None:
            raise ConfigError(
                f"{model.folder}: is not trained yet: run launch.py ensemble --name "
                f"{run.path.name} first, or lower --top-k"
            )
    proposals = Proposals(
        start_with=start_with,
        selection_per_class=run.config.selection_per_class if per_class is None else per_class,
        tta=propose_tta(offered, trials),
        logit_adjustment=run.config.logit_adjustment,
        by_object=run.config.by_object,
        crf=propose_crf(run.config.crf, trials),
        crf_photos=photos,
    )
    with run.locked():
        return vote_and_log(run, models, dataset, test_dataset, proposals)


def propose_crf(hand_tuned: CrfConfig, trials: int) -> tuple[CrfConfig, ...]:
    """`trials` settings, the hand-tuned ones first; the iterations are those of the run."""
    proposals = []

    def propose(trial: Trial) -> float:
        drawn = {
            name: trial.suggest_float(name, *bounds, log=True)
            for name, bounds in CRF_RANGES.items()
        }
        proposals.append(hand_tuned.model_copy(update=drawn))
        return NO_SCORE

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.QMCSampler(scramble=True, seed=SEED)
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial({name: getattr(hand_tuned, name) for name in CRF_RANGES})
    study.optimize(propose, n_trials=trials)
    return tuple(proposals)


def propose_tta(offered: TtaConfig, trials: int) -> tuple[TtaConfig, ...]:
    """Subsets of the offered views and scales, each with the first of both, at most `trials`; those
    that cost least come first, and win where several are equally good."""
    proposals = set()

    def propose(trial: Trial) -> float:
        views, scales = (
            (first, *(v for v in others if trial.suggest_categorical(str(v), [False, True])))
            for first, *others in (offered.views, offered.scales)
        )
        proposals.add(offered.model_copy(update={"views": views, "scales": scales}))
        return NO_SCORE

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.BruteForceSampler(seed=SEED)
    optuna.create_study(sampler=sampler).optimize(propose, n_trials=trials)
    return tuple(sorted(proposals, key=lambda tta: (len(views_of(tta)), tta.views, tta.scales)))
