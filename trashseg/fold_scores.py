"""What each step after training brings alone, fold by fold: nothing is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from trashseg.choice import Proposals, equal_vote, single
from trashseg.config import CrfConfig, TtaConfig
from trashseg.counts import Counts
from trashseg.data.coco import CocoDataset
from trashseg.data.folds import Folds
from trashseg.device import Resources
from trashseg.fold_models import FoldModel, ballots_of, by_candidate, keep_missing_views
from trashseg.masks import cpu_pool
from trashseg.metrics import Scores, scores_of
from trashseg.postprocess import (
    adjuster,
    always,
    count_by_fold,
    gather,
    picker,
    weigher,
)
from trashseg.views import PLAIN


@dataclass(frozen=True)
class FoldScores:
    """At the photos' own size."""

    by_fold: Mapping[int, Scores]
    """Of each fold's photos."""
    pooled: Scores
    """Of all photos at once."""


def score_steps(
    models: Sequence[FoldModel],
    tta: TtaConfig,
    logit_adjustment: Sequence[float],
    crf: CrfConfig,
    metric: str,
    dataset: CocoDataset,
    folds: Folds,
    resources: Resources,
) -> dict[str, FoldScores]:
    """Of one configuration's folds: `plain` votes, those with `tta`, those with `logit_adjustment`,
    its power chosen for each fold on the others, those decided `by_object`, those with `crf`."""
    plain = equal_vote(1)
    views = Proposals(tta=(tta,)).views
    keep_missing_views(models, views, dataset, folds, resources)
    ballots = ballots_of(by_candidate(models), dataset, folds)
    with cpu_pool(resources.cpus) as pool:
        evidence = gather(pool, ballots, [view.name for view in views], len(dataset.classes))
        picks = {
            "plain": always(plain),
            "tta": always(replace(plain, tta=tta)),
            "logit_adjustment": adjuster(evidence, metric, plain, logit_adjustment),
            "by_object": always(replace(plain, by_object=True)),
            "crf": always(replace(plain, crf=crf)),
        }
        return {
            name: score_folds(count_by_fold(evidence, pick), dataset.classes)
            for name, pick in picks.items()
        }


def score_vote(
    models: Sequence[FoldModel], dataset: CocoDataset, folds: Folds, resources: Resources
) -> FoldScores:
    """Of all models, one configuration's folds and seeds, with equal weights."""
    ballots = ballots_of(by_candidate(models), dataset, folds)
    with cpu_pool(resources.cpus) as pool:
        evidence = gather(pool, ballots, [PLAIN.name], len(dataset.classes))
        counts = count_by_fold(evidence, always(equal_vote(1)))
        return score_folds(counts, dataset.classes)


def score_selection(
    models: Sequence[FoldModel],
    metric: str,
    dataset: CocoDataset,
    folds: Folds,
    resources: Resources,
) -> dict[str, FoldScores]:
    """Of several configurations' folds: the `best_single` one, their `equal_vote`, and the `selection`
    of greedy weights. The first and the last are chosen for each fold on the others."""
    candidates = by_candidate(models)
    ballots = ballots_of(candidates, dataset, folds)
    with cpu_pool(resources.cpus) as pool:
        evidence = gather(pool, ballots, [PLAIN.name], len(dataset.classes))

        alone = [single(rank, len(candidates)) for rank in range(len(candidates))]
        picks = {
            "best_single": picker(alone, evidence.sampled, metric),
            "equal_vote": always(equal_vote(len(candidates))),
            "selection": weigher(evidence, metric),
        }
        return {
            name: score_folds(count_by_fold(evidence, pick), dataset.classes)
            for name, pick in picks.items()
        }


def score_folds(counts: Mapping[int, Counts], classes: Sequence[str]) -> FoldScores:
    """Of photos by their confusion matrices (N, C, C), for each fold."""
    return FoldScores(
        {fold: scores_of(torch.from_numpy(of_fold), classes) for fold, of_fold in counts.items()},
        scores_of(torch.from_numpy(np.concatenate(list(counts.values()))), classes),
    )
