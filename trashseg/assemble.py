"""An ensemble made of trained folds: decided on votes out of fold, scored, and written down.

OUT/manifest.yaml    members with their weights, views, what follows: all `predict` needs
OUT/metrics.json     scores out of fold and on the test folder, with and without CRF; the nested ones
OUT/post.json        each step with and without, its noise, kept or not and why; the same by fold
OUT/masks/           the chosen prediction for each photo, out of fold, at the photo's size;
                     what was not chosen is beside it, as masks_soft_vote(_crf)
OUT/test_masks/      the same for the test folder, where one was given
OUT/confusion.csv    pixels by truth (rows) and chosen out-of-fold prediction (columns)
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trashseg.choice import Choice, Proposals, single
from trashseg.counts import Counts
from trashseg.data.coco import CocoDataset, rasterize
from trashseg.data.folds import Folds
from trashseg.device import Resources
from trashseg.ensemble import Ensemble, OnPhoto, votes
from trashseg.files import new_folder, write_json, write_text
from trashseg.fold_models import FoldModel, ballots_of, by_candidate, keep_missing_views
from trashseg.fold_scores import score_folds
from trashseg.manifest import Kind, write_manifest
from trashseg.masks import cpu_pool
from trashseg.member import load_member, member_scores
from trashseg.metrics import Scores, SegmentationScores, scores_of
from trashseg.pictures import encode_mask, write_mask
from trashseg.postprocess import Decision, Evidence, decide, decide_by_fold, gather
from trashseg.weighting import Weight, Weights, is_heard, split

KINDS: tuple[Kind, Kind] = ("soft_vote", "soft_vote_crf")
OnStep = Callable[[str], None]


@dataclass(frozen=True)
class Decided:
    """What is deployed, what each fold's photos are scored with, and on what grounds."""

    evidence: Evidence
    deployed: Decision
    by_fold: Mapping[int, Decision]
    with_crf: Choice
    """The deployed weights and views with the CRF that was compared, kept or not."""

    @property
    def kinds(self) -> dict[Kind, Choice]:
        return dict(zip(KINDS, (self.with_crf.without_crf, self.with_crf), strict=True))

    @property
    def chosen(self) -> Kind:
        return "soft_vote" if self.deployed.choice.crf is None else "soft_vote_crf"


def build_ensemble(
    models: Sequence[FoldModel],
    dataset: CocoDataset,
    folds: Folds,
    out: Path,
    proposals: Proposals,
    metric: str,
    resources: Resources,
    test: CocoDataset | None = None,
    on_photo: OnPhoto = lambda: None,
    on_step: OnStep = lambda text: None,
) -> dict[str, Any]:
    """Choose weights, views and what follows by `metric` out of fold, score what comes out (also on
    `test`), write `out`.

    Each photo is voted on only by the models that had it in their validation fold; the test folder
    plays no part in any choice. Returns what metrics.json holds.
    """
    candidates = by_candidate(models)
    keep_missing_views(models, proposals.views, dataset, folds, resources, on_step)
    ballots = ballots_of(candidates, dataset, folds)
    names = [view.name for view in proposals.views]
    with new_folder(out, replace=True) as partial, cpu_pool(resources.cpus) as pool:
        evidence = gather(pool, ballots, names, len(dataset.classes))
        decided = decide_all(evidence, proposals, metric, on_step)
        write_masks(partial, decided, on_photo)
        tested = None
        if test is not None:
            members = weights_of(candidates, decided.deployed.choice.effective_weights)
            tested = run_test(pool, members, decided, test, partial, resources, on_photo)
        metrics = {
            **describe(decided, dataset.classes),
            "voters": {
                str(rank): [model.name for model in models]
                for rank, models in enumerate(candidates)
            },
            "test": tested,
            "members": {model.name: member_scores(model.folder, model.config) for model in models},
        }
        write_report(partial / "post.json", decided, proposals, metric, metrics["nested"])
        write_confusion(partial / "confusion.csv", dataset.classes, decided)
        write_manifest(
            partial,
            out,
            weights_of(candidates, decided.deployed.choice.effective_weights),
            dataset.classes,
            decided.with_crf,
            decided.chosen,
        )
        write_json(partial / "metrics.json", metrics)
    return metrics


def decide_all(evidence: Evidence, proposals: Proposals, metric: str, on_step: OnStep) -> Decided:
    on_step("choosing for each fold on the others")
    by_fold = decide_by_fold(evidence, proposals, metric)
    on_step("choosing on all")
    everything = np.arange(len(evidence.fold_of))
    deployed = decide(evidence, proposals, metric, everything, thorough=True)
    for step in deployed.steps:
        on_step(f"{step.name} {'kept' if step.kept else 'not kept'}: {step.why}")
    tried = deployed.steps[-1].found.crf or proposals.crf[0]
    return Decided(evidence, deployed, by_fold, replace(deployed.choice, crf=tried))


def weights_of(candidates: Sequence[Sequence[FoldModel]], weights: Weights) -> dict[Path, Weight]:
    """Folders of the members that have a weight; a candidate's is shared out among its members."""
    return {
        model.folder: split(weight, len(models))
        for models, weight in zip(candidates, weights, strict=True)
        for model in models
        if is_heard(weight)
    }


# --- masks -------------------------------------------------------------------------------------


def write_masks(partial: Path, decided: Decided, on_photo: OnPhoto) -> None:
    full, (plain, refined) = decided.evidence.full, KINDS
    both = zip(*(full.masks(choice) for choice in decided.kinds.values()), strict=True)
    for (ballot, without), (_, with_it) in both:
        for kind, mask in ((plain, without), (refined, with_it)):
            write_mask(partial / folder_of(kind, decided), ballot.photo.file_name, mask)
        on_photo()


def folder_of(kind: Kind, decided: Decided) -> str:
    return "masks" if kind == decided.chosen else f"masks_{kind}"


def run_test(
    pool: ProcessPoolExecutor,
    members: Mapping[Path, Weight],
    decided: Decided,
    test: CocoDataset,
    partial: Path,
    resources: Resources,
    on_photo: OnPhoto,
) -> dict[Kind, Scores] | None:
    """Masks of the test folder, and their scores where it has a truth."""
    ensemble = Ensemble(
        members=tuple(load_member(folder, resources.device) for folder in members),
        weights=tuple(members.values()),
        tta=decided.with_crf.tta,
        by_object=decided.with_crf.by_object,
        crf=decided.with_crf.crf,
        resources=resources,
    )
    totals = {kind: SegmentationScores(test.classes) for kind in KINDS}
    for photo, masks in votes(pool, ensemble, test.photos):
        for kind in KINDS if test.labelled else ():
            truth, mask = rasterize(photo), getattr(masks, kind)
            totals[kind].update(torch.from_numpy(mask)[None], torch.from_numpy(truth)[None])
        chosen = getattr(masks, decided.chosen)
        write_mask(partial / "test_masks", photo.file_name, encode_mask(chosen))
        on_photo()
    return {kind: total.scores() for kind, total in totals.items()} if test.labelled else None


# --- reports -----------------------------------------------------------------------------------


def describe(decided: Decided, classes: Sequence[str]) -> dict[str, Any]:
    """What metrics.json says of the photos that the folds were trained on."""
    everything = np.arange(len(decided.evidence.fold_of))
    candidates = decided.evidence.sample.candidates
    alone = {str(rank): single(rank, candidates) for rank in range(candidates)}
    nested = score_folds(nested_counts(decided), classes)

    def scores(choice: Choice) -> Scores:
        counts = decided.evidence.full.counts(choice, everything)
        return scores_of(torch.from_numpy(counts), classes)

    return {
        "oof": {kind: scores(choice) for kind, choice in decided.kinds.items()},
        "nested": nested.pooled,
        "nested_by_fold": {str(fold): of_fold for fold, of_fold in nested.by_fold.items()},
        "chosen": decided.chosen,
        "steps": [step.describe() for step in decided.deployed.steps],
        "candidates": {rank: scores(choice) for rank, choice in alone.items()},
    }


def nested_counts(decided: Decided) -> dict[int, Counts]:
    """(N, C, C) by fold: its photos under what was chosen without them."""
    evidence = decided.evidence
    return {
        fold: evidence.full.counts(decision.choice, np.flatnonzero(evidence.fold_of == fold))
        for fold, decision in decided.by_fold.items()
    }


def write_report(
    path: Path, decided: Decided, proposals: Proposals, metric: str, nested: Scores
) -> None:
    """post.json: what was tried, what each step brought, and the same for each fold."""
    report = {
        "metric": metric,
        "chosen": decided.deployed.describe(),
        "nested": {
            "scores": nested,
            "folds": {str(fold): found.describe() for fold, found in decided.by_fold.items()},
        },
        "tried": {
            "start_with": proposals.start_with,
            "selection_per_class": proposals.selection_per_class,
            "tta": [tta.model_dump(mode="json") for tta in proposals.tta],
            "logit_adjustment": list(proposals.logit_adjustment),
            "by_object": proposals.by_object,
            "crf": [crf.model_dump(mode="json") for crf in proposals.crf],
            "crf_photos": proposals.crf_photos,
            "crf_runs": decided.evidence.full.refinements,
        },
    }
    write_json(path, report)


def write_confusion(path: Path, classes: Sequence[str], decided: Decided) -> None:
    everything = np.arange(len(decided.evidence.fold_of))
    counts = decided.evidence.full.counts(decided.kinds[decided.chosen], everything)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["truth", *classes])
    rows = counts.sum(axis=0).tolist()
    writer.writerows([name, *row] for name, row in zip(classes, rows, strict=True))
    write_text(path, table.getvalue())
