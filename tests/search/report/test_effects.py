"""Which losses and augmentations help: differences, intervals and verdicts, worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.report.effects import (
    SHUFFLES,
    Effect,
    Family,
    Verdict,
    augmentations,
    bootstrap_interval,
    choice,
    choices,
    corrected,
    effect,
    families,
    permutation_p,
    split,
)
from search.report.trials import TrialFacts
from search.report.wording import effects_sentence
from search.space import Parameter, Space, Value


def space(**parameters: dict[str, object]) -> Space:
    named = {key.replace("__", "."): Parameter.model_validate(p) for key, p in parameters.items()}
    return Space("made", named)


LOSSES = space(
    loss__name={"choice": ["dice", "focal"]},
    loss__gamma={"float": [0.5, 4.0], "when": {"loss.name": ["focal"]}},
    augment__cutout__p={"float": [0.0, 0.5]},
    augment__cutout__size={"float": [0.1, 0.2]},
    model__arch={"choice": ["fpn", "unet"]},
    batch_size={"choice": [4]},
)


def trial(number: int, score: float | None, state: str = "finished", **point: Value) -> TrialFacts:
    """Its score after epoch 3."""
    named = {key.replace("__", "."): value for key, value in point.items()}
    curve = {} if score is None else {1: score / 2, 3: score}
    return TrialFacts(
        f"trial_{number:03d}", number, state, number == 0, 3, score, score, named, curve, ""
    )


def test_the_effect_of_a_choice_is_the_difference_of_two_means() -> None:
    trials = [
        *(trial(n, s, loss__name="dice") for n, s in enumerate([0.1, 0.2, 0.3])),
        *(trial(n + 3, s, loss__name="focal") for n, s in enumerate([0.5, 0.7])),
    ]
    scores = {t.name: t.score_after(3) or 0.0 for t in trials}
    key, (dice, focal) = choice(trials, scores, "loss.name")
    assert key == "loss.name"
    assert dice.difference == pytest.approx(0.2 - 0.6)
    assert focal.difference == pytest.approx(0.6 - 0.2)
    assert (dice.trials, dice.others) == (3, 2)
    assert dice.interval is None  # two others are too few
    assert dice.p is None


def test_keys_that_every_trial_chooses_make_families_the_loss_first() -> None:
    assert choices(LOSSES) == ["loss.name", "model.arch"]


def test_an_augmentation_is_compared_above_and_up_to_the_median_probability() -> None:
    # 0.1 0.2 0.3 0.4: the median is 0.25
    contrast, above = split({"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4})
    assert contrast == "probability above 0.25 against the rest"
    assert above == {"a": False, "b": False, "c": True, "d": True}


def test_an_augmentation_that_three_trials_lack_is_compared_on_against_off() -> None:
    contrast, on = split({"a": 0, "b": 0, "c": 0, "d": 0.01, "e": 0.5})
    assert contrast == "on against off"
    assert [name for name, is_on in on.items() if is_on] == ["d", "e"]


def test_trials_that_failed_without_a_score_are_counted_and_not_compared() -> None:
    trials = [
        trial(0, 0.1, augment__cutout__p=0.0, loss__name="dice"),
        trial(1, 0.4, augment__cutout__p=0.5, loss__name="dice"),
        trial(2, None, "failed", augment__cutout__p=0.25, loss__name="focal"),
        trial(3, 0.2, "failed", augment__cutout__p=0.1, loss__name="dice"),
    ]
    scores = {"trial_000": 0.1, "trial_001": 0.4}
    _, [cutout] = augmentations(trials, scores, LOSSES)
    assert cutout.name == "cutout"
    assert cutout.difference == pytest.approx(0.3)
    assert cutout.failed == 2
    _, [dice, focal] = choice(trials, scores, "loss.name")
    assert (dice.failed, focal.failed) == (1, 1)
    assert focal.difference is None


def test_only_trials_that_reached_the_epoch_are_compared() -> None:
    points = {"loss__name": "dice", "augment__cutout__p": 0.1, "model__arch": "fpn"}
    other = {"loss__name": "focal", "augment__cutout__p": 0.3, "model__arch": "unet"}
    early = TrialFacts("early", None, "open", False, 2, 0.9, 0.9, {}, {1: 0.8, 2: 0.9}, "")
    found = families([trial(0, 0.2, **points), trial(1, 0.4, **other), early], LOSSES, epoch=3)
    assert [family.key for family in found] == ["loss.name", "model.arch", "augment"]
    assert {family.trials for family in found} == {2}
    assert found[2].effects[0].difference == pytest.approx(0.2)


def test_a_search_without_choices_has_no_families() -> None:
    rates = space(optim__decoder_lr={"float": [1e-4, 1e-2], "log": True})
    assert families([trial(0, 0.5, optim__decoder_lr=0.001)], rates, epoch=3) == []


# --- intervals and verdicts --------------------------------------------------------------------


def test_groups_without_spread_have_an_interval_of_one_point() -> None:
    low, high = bootstrap_interval(np.full(3, 0.5), np.full(4, 0.2))
    assert (low, high) == pytest.approx((0.3, 0.3))


def test_the_interval_of_a_mean_is_about_two_standard_errors_wide() -> None:
    # one group without spread; the other has s = 1, n = 100 (s / sqrt n = 0.1): +- 1.96 * 0.1
    rng = np.random.default_rng(3)
    ours = rng.normal(size=100)
    ours = (ours - ours.mean()) / ours.std()
    low, high = bootstrap_interval(ours, np.zeros(5))
    assert low == pytest.approx(-0.196, abs=0.02)
    assert high == pytest.approx(0.196, abs=0.02)


def test_the_p_value_is_the_share_of_deals_that_differ_as_much() -> None:
    # of the 20 ways to deal six scores to 3 and 3, two separate them so: this one and its mirror image
    p = permutation_p(np.array([4.0, 5.0, 6.0]), np.array([1.0, 2.0, 3.0]))
    assert p == pytest.approx(2 / 20, abs=0.015)


def test_equal_groups_are_never_told_apart() -> None:
    assert permutation_p(np.ones(4), np.ones(5)) == 1.0


def made(name: str, p: float | None, difference: float) -> Effect:
    interval = None if p is None else (0.0, 1.0)
    return Effect(name, "", 5, 5, difference, interval, p, None, "too few", 0)


def test_p_values_are_corrected_for_the_number_of_effects_in_the_family() -> None:
    effects = corrected(
        [made("a", 0.01, 0.1), made("b", 0.03, 0.2), made("c", 0.015, -0.3), made("d", None, 9.0)]
    )
    # Holm: 3 * 0.01, 2 * 0.015, 1 * 0.03
    found = {each.name: (each.p_holm, each.verdict) for each in effects}
    assert found["a"] == (pytest.approx(0.03), "helps")
    assert found["c"] == (pytest.approx(0.03), "harms")
    assert found["b"] == (pytest.approx(0.03), "helps")
    assert found["d"] == (None, "too few")
    assert [each.name for each in effects] == ["b", "a", "c", "d"]


def test_a_difference_that_chance_may_give_is_not_shown() -> None:
    [only] = corrected([made("a", 0.051, 0.4)])
    assert only.verdict == "not shown"


SCORE = st.floats(0, 1, allow_subnormal=False)


@settings(max_examples=25, deadline=None)
@given(st.lists(SCORE, min_size=3, max_size=8), st.lists(SCORE, min_size=3, max_size=8), SCORE)
def test_an_effect_turns_around_with_its_sides_and_does_not_move_with_all_scores(
    ours: list[float], others: list[float], shift: float
) -> None:
    def of(one: list[float], two: list[float]) -> Effect:
        has = {str(n): n < len(one) for n in range(len(one) + len(two))}
        return effect("", "", has, {str(n): s for n, s in enumerate([*one, *two])}, 0)

    there, back = of(ours, others), of(others, ours)
    moved = of([s + shift for s in ours], [s + shift for s in others])
    assert there.difference is not None
    assert back.difference == pytest.approx(-there.difference)
    assert moved.difference == pytest.approx(there.difference, abs=1e-9)
    assert there.p is not None
    assert 1 / (1 + SHUFFLES) <= there.p <= 1
    assert there.interval is not None
    assert there.interval[0] <= there.interval[1]


# --- in words ----------------------------------------------------------------------------------


def judged(name: str, verdict: Verdict) -> Effect:
    return Effect(name, "", 5, 5, 0.0, None, None, None, verdict, 0)


@pytest.mark.parametrize(
    ("key", "effects", "sentence"),
    [
        (
            "averaging.name",
            (judged("none", "helps"), judged("ema", "harms")),
            "Averaging, by the trials of this search: “none” helps; “ema” harms.",
        ),
        (
            "augment",
            (judged("crop", "helps"), judged("flip", "helps"), judged("clahe", "not shown")),
            "Augmentation, by the trials of this search: “crop”, “flip” help.",
        ),
        (
            "loss.name",
            (judged("dice", "not shown"), judged("focal", "too few")),
            "No loss is shown to help or to harm by the 10 trials of this search.",
        ),
    ],
)
def test_a_sentence_says_what_helps_and_what_harms(
    key: str, effects: tuple[Effect, ...], sentence: str
) -> None:
    assert effects_sentence(Family(key, 3, 10, effects)) == sentence
