"""What is done with votes: each step kept or not on votes whose worth is known, and nothing leaks."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trashseg.written_votes import (
    Labels,
    blind,
    decided,
    decisions_beside_other_truths,
    gather,
    noisy,
    shifted,
    step,
    truth,
    write_votes,
)
from trashseg.choice import Choice, Proposals, equal_vote, single
from trashseg.config import CrfConfig, TtaConfig
from trashseg.counts import Counts
from trashseg.data.coco import CocoDataset, Photo
from trashseg.data.folds import Folds
from trashseg.noise import score
from trashseg.postprocess import (
    Decision,
    Positions,
    cautious_picker,
    decide,
    decide_by_fold,
    picker,
    subset,
    take,
)

# Without colour, so that what it does to a mask is known: it takes lone pixels for their neighbours.
SMOOTH = CrfConfig(bilateral_weight=0.0, gaussian_sxy=2.0)
WIPE = CrfConfig(bilateral_weight=0.0, gaussian_sxy=8.0, gaussian_weight=20.0)
NOTHING = CrfConfig(bilateral_weight=0.0, gaussian_weight=0.0)
FLIP = TtaConfig(views=("identity", "horizontal_flip"))
both_metrics = pytest.mark.parametrize("metric", ["miou", "miou_image"])


# --- selection ---------------------------------------------------------------------------------


@both_metrics
def test_two_candidates_that_each_see_a_half_are_both_kept(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor, metric: str
) -> None:
    models = [
        *write_votes(tmp_path, 0, dataset, folds, blind(left=True)),
        *write_votes(tmp_path, 1, dataset, folds, blind(left=False)),
        *write_votes(tmp_path, 2, dataset, folds, shifted),
    ]
    evidence = gather(pool, models, dataset, folds)
    decision = decided(evidence, Proposals(crf=()), metric)
    selection = step(decision, "selection")
    # In each half one knows and the other has no opinion; the third is never right about an object.
    assert selection.kept
    assert decision.choice.weights[2] == 0
    assert min(decision.choice.weights[:2]) > 0
    assert selection.comparison is not None
    assert selection.comparison.gain > selection.comparison.noise > 0


def test_a_single_candidate_has_no_other_weights(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    models = write_votes(tmp_path, 0, dataset, folds, noisy(0.2))
    decision = decided(gather(pool, models, dataset, folds), Proposals(crf=()))
    assert decision.choice == single(0, 1)
    assert (
        step(decision, "selection").describe()["why"].startswith("nothing was found that differs")
    )


@pytest.mark.parametrize("right", [0, 1])
def test_a_candidate_that_is_clearly_worse_is_left_out(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor, right: int
) -> None:
    models = [
        *write_votes(tmp_path, right, dataset, folds, truth),
        *write_votes(tmp_path, 1 - right, dataset, folds, shifted),
    ]
    decision = decided(gather(pool, models, dataset, folds), Proposals(crf=()))
    assert step(decision, "selection").kept
    assert decision.choice == single(right, 2)


def test_both_vote_alike_where_one_is_better_on_one_photo_alone(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    first, lucky = noisy(0.2), dataset.photos[0]

    def second(photo: Photo) -> Labels:
        return truth(photo) if photo == lucky else first(photo)

    models = [
        *write_votes(tmp_path, 0, dataset, folds, first),
        *write_votes(tmp_path, 1, dataset, folds, second),
    ]
    evidence = gather(pool, models, dataset, folds)
    decision = decided(evidence, Proposals(crf=()))
    equal, better = (
        score(evidence.sample.counts(choice), "miou") for choice in (equal_vote(2), single(1, 2))
    )
    assert better > equal
    assert not step(decision, "selection").kept
    assert decision.choice == equal_vote(2)


def test_the_first_vote_alike_where_the_others_add_nothing(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    models = [
        model
        for rank in range(4)
        for model in write_votes(tmp_path, rank, dataset, folds, noisy(0.2))
    ]
    decision = decided(gather(pool, models, dataset, folds), Proposals(start_with=2, crf=()))
    assert decision.choice == Choice((0.5, 0.5, 0.0, 0.0))


def test_who_is_first_makes_no_difference(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    """Their order is that of scores on the very photos that the ensemble is judged on."""
    say = [noisy(0.3, seed=1), noisy(0.3, seed=2), blind(left=True)]
    weights = []
    for name, order in (("as they are", (0, 1, 2)), ("the last one first", (2, 0, 1))):
        models = [
            model
            for rank, speaker in enumerate(order)
            for model in write_votes(tmp_path / name, rank, dataset, folds, say[speaker])
        ]
        found = decided(gather(pool, models, dataset, folds), Proposals(crf=())).choice.weights
        weights.append(dict(zip(order, found, strict=True)))
    assert weights[0] == weights[1]


# --- of several ------------------------------------------------------------------------------------

ALL_RIGHT, HALF_RIGHT, WORSE = (np.array([[n, 8 - n], [8 - n, n]]) for n in (8, 4, 2))
FIRST, LUCKY, BETTER = (Choice((1.0,), crf=CrfConfig(iterations=count)) for count in (1, 2, 3))
COUNTS = {
    FIRST: np.stack([HALF_RIGHT] * 10),
    # drawn anew, either of both photos is there once, give or take one: a gain of 1 - 1/2 +- 1.1
    LUCKY: np.stack([ALL_RIGHT, WORSE, *[HALF_RIGHT] * 8]),
    BETTER: np.stack([*[ALL_RIGHT] * 6, *[HALF_RIGHT] * 4]),
}


@both_metrics
@pytest.mark.parametrize(
    ("options", "cautious", "best"),
    [
        ((FIRST, LUCKY), FIRST, LUCKY),
        ((FIRST, LUCKY, BETTER), BETTER, BETTER),
        ((BETTER, LUCKY, FIRST), BETTER, BETTER),
        ((FIRST, FIRST), FIRST, FIRST),
    ],
)
def test_the_first_of_several_stays_unless_another_is_better_beyond_noise(
    options: tuple[Choice, ...], cautious: Choice, best: Choice, metric: str
) -> None:
    def counts(choice: Choice, photos: Positions) -> Counts:
        return COUNTS[choice][photos]

    assert cautious_picker(options, counts, metric)(np.arange(10)) == cautious
    assert picker(options, counts, metric)(np.arange(10)) == best


# --- views -------------------------------------------------------------------------------------


@both_metrics
@pytest.mark.parametrize(
    ("plain", "flipped", "kept"),
    [(noisy(0.3), truth, True), (truth, shifted, False), (noisy(0.3), noisy(0.3), False)],
    ids=["it knows better", "it knows worse", "it knows the same"],
)
def test_a_view_is_kept_only_where_it_helps(
    tmp_path: Path,
    dataset: CocoDataset,
    folds: Folds,
    pool: ThreadPoolExecutor,
    metric: str,
    plain: object,
    flipped: object,
    kept: bool,
) -> None:
    models = write_votes(tmp_path, 0, dataset, folds, plain)  # type: ignore[arg-type]
    write_votes(tmp_path, 0, dataset, folds, flipped, view="horizontal_flip_1")  # type: ignore[arg-type]
    proposals = Proposals(tta=(FLIP,), crf=())
    decision = decided(gather(pool, models, dataset, folds, proposals), proposals, metric)
    # a half of 0.6 for the truth and of 0.6 for noise: a tie that the lower class wins, at times right
    assert step(decision, "tta").kept == kept
    assert decision.choice.tta == (FLIP if kept else TtaConfig())


# --- CRF ---------------------------------------------------------------------------------------


@both_metrics
@pytest.mark.parametrize(
    ("say", "crf", "kept"),
    [(noisy(0.1), SMOOTH, True), (truth, WIPE, False), (truth, NOTHING, False)],
    ids=["it cleans up noise", "it wipes small objects away", "it changes nothing"],
)
def test_a_crf_is_kept_only_where_it_helps(
    tmp_path: Path,
    dataset: CocoDataset,
    folds: Folds,
    pool: ThreadPoolExecutor,
    metric: str,
    say: object,
    crf: CrfConfig,
    kept: bool,
) -> None:
    models = write_votes(tmp_path, 0, dataset, folds, say)  # type: ignore[arg-type]
    decision = decided(gather(pool, models, dataset, folds), Proposals(crf=(crf,)), metric)
    assert step(decision, "crf").kept == kept
    assert decision.choice.crf == (crf if kept else None)


def test_the_best_of_several_crfs_is_found_on_few_photos_and_checked_on_all(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    models = write_votes(tmp_path, 0, dataset, folds, noisy(0.1))
    evidence = gather(pool, models, dataset, folds)
    decision = decided(evidence, Proposals(crf=(WIPE, SMOOTH, NOTHING), crf_photos=5))
    assert decision.choice.crf == SMOOTH
    assert step(decision, "crf").photos == 20
    assert evidence.full.refinements == 3 * 5 + 15  # all on five photos, the best on the others
    again = decided(evidence, Proposals(crf=(WIPE, SMOOTH, NOTHING), crf_photos=5))
    assert again == decision
    assert evidence.full.refinements == 30  # nothing twice


def test_a_gain_within_its_noise_is_not_kept(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    """One photo of 20 gains: by the bootstrap the standard error is as large as the gain."""
    lucky = dataset.photos[3].id
    models = [
        *write_votes(tmp_path, 0, dataset, folds, shifted),
        *write_votes(
            tmp_path,
            1,
            dataset,
            folds,
            lambda photo: (truth if photo.id == lucky else shifted)(photo),
        ),
    ]
    evidence = gather(pool, models, dataset, folds)
    worse, better = single(0, 2), single(1, 2)
    everyone = np.arange(20)
    taken = take(
        "selection", worse, lambda _: better, evidence.sampled, "miou_image", everyone, everyone
    )
    assert taken.comparison is not None
    assert taken.comparison.gain > 0
    assert taken.kept == (taken.comparison.gain > taken.comparison.noise)
    # the gain of one photo in 20: mean g/20, standard error g * sqrt(1/20 * 19/20 / 20) = 0.97 g/20
    assert taken.comparison.noise == pytest.approx(taken.comparison.gain * 0.97, rel=0.15)


def test_a_step_is_measured_on_photos_that_its_parameters_were_not_picked_on(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    evidence = gather(pool, write_votes(tmp_path, 0, dataset, folds, noisy(0.1)), dataset, folds)
    asked: dict[Choice, set[int]] = {}
    base = single(0, 1)

    def pick(photos: np.ndarray) -> Choice:
        """A choice of its own for each set of photos, which is remembered."""
        crf = CrfConfig(gaussian_weight=float(1 + len(asked)))
        asked[replace(base, crf=crf)] = set(photos.tolist())
        return replace(base, crf=crf)

    measured: list[int] = []

    def counts(choice: Choice, photos: np.ndarray) -> np.ndarray:
        if choice != base:
            assert not asked[choice] & set(photos.tolist())
            measured.extend(photos.tolist())
        return evidence.sampled(base, photos)

    some = np.array([1, 2, 5, 7, 8, 11, 13])
    taken = take("crf", base, pick, counts, "miou", np.arange(20), some)
    assert sorted(measured) == list(range(20))
    assert asked[taken.found] == set(some.tolist())


def test_on_a_single_photo_nothing_is_decided(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    evidence = gather(pool, write_votes(tmp_path, 0, dataset, folds, noisy(0.1)), dataset, folds)
    decision = decide(evidence, Proposals(crf=(SMOOTH,)), "miou", np.array([4]), thorough=True)
    assert decision.choice == single(0, 1)
    assert not any(step.kept for step in decision.steps)


def test_few_photos_are_shared_by_all_who_may_look_at_them() -> None:
    everyone = np.arange(50)
    without_some = np.setdiff1d(everyone, [3, 4, 5])
    all_of_them, fewer = subset(everyone, 50, 20), subset(without_some, 50, 20)
    assert len(all_of_them) == len(fewer) == 20
    assert set(fewer) >= set(all_of_them) - {3, 4, 5}
    assert not set(fewer) & {3, 4, 5}
    assert subset(fewer, 50, 100).tolist() == fewer.tolist()


# --- nested ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_truth_of_a_fold_has_no_part_in_the_choices_that_it_is_scored_with(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    models = [
        *write_votes(tmp_path, 0, dataset, folds, blind(left=True)),
        *write_votes(tmp_path, 1, dataset, folds, blind(left=False)),
    ]
    for rank in (0, 1):
        write_votes(tmp_path, rank, dataset, folds, noisy(0.1, seed=rank), view="horizontal_flip_1")
    proposals = Proposals(tta=(FLIP,), crf=(SMOOTH, WIPE), crf_photos=8)
    assert decisions_beside_other_truths(pool, models, dataset, folds, proposals)


def test_a_folds_photos_are_scored_under_what_was_chosen_on_the_other_folds(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    """In fold 0 the first candidate is right, elsewhere the second: fold 0 gets the wrong one."""
    fold_of = {p.id: f for p, f in zip(dataset.photos, folds.fold_of.tolist(), strict=True)}
    models = [
        *write_votes(
            tmp_path, 0, dataset, folds, lambda p: truth(p) if fold_of[p.id] == 0 else shifted(p)
        ),
        *write_votes(
            tmp_path, 1, dataset, folds, lambda p: shifted(p) if fold_of[p.id] == 0 else truth(p)
        ),
    ]
    found = decide_by_fold(gather(pool, models, dataset, folds), Proposals(crf=()), "miou_image")
    assert found[0].choice == single(1, 2)


def test_without_another_fold_to_choose_on_all_vote_alike(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    models = [
        *write_votes(tmp_path, 0, dataset, folds, truth),
        *write_votes(tmp_path, 1, dataset, folds, shifted),
    ]
    only = [model for model in models if model.fold == 2]
    found = decide_by_fold(gather(pool, only, dataset, folds), Proposals(crf=(SMOOTH,)), "miou")
    assert found == {2: Decision(Choice((0.5, 0.5)), ())}
