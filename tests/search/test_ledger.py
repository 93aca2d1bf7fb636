"""The search's memory: what is on disk is what counts, whenever the process is killed."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from search.config import SearchConfig
from search.ledger import Ledger, make_sampler, read_rungs, read_trials, standings_of
from search.space import Point, Space, load_space
from tests.search.ledgers import open_ledger

CONFIG = SearchConfig.model_validate(
    {"epochs": 9, "search": {"name": "night", "startup_trials": 3, "seed": 4}}
)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    """A small one, because every parameter is a transaction."""
    file = tmp_path_factory.mktemp("space") / "space.yaml"
    file.write_text(
        "loss.name: {choice: [cross_entropy, focal]}\n"
        "loss.gamma: {float: [0.5, 4.0], when: {loss.name: [focal]}}\n"
        "optim.decoder_lr: {float: [1.0e-4, 5.0e-3], log: true}\n"
    )
    return load_space(str(file))


def score_of(point: Point) -> float:
    """Some landscape for the sampler to learn."""
    return 1.0 - abs(float(point["optim.decoder_lr"]) - 2e-3)


def play(ledger: Ledger) -> Point:
    """One trial from its proposal to its end: every third is pruned, every fifth fails."""
    number = ledger.proposed
    name = ledger.propose()
    point = ledger.points[name]
    ledger.record_epoch(name, 1, score_of(point) / 2)
    if number % 5 == 4:
        ledger.end(name, "failed", {"error": "ValueError: five"})
    elif number % 3 == 2:
        ledger.end(name, "pruned", {"epoch": 1})
    else:
        ledger.record_epoch(name, 9, score_of(point))
        ledger.end(name, "finished", {"epoch": 9})
    return point


def cut_off_a_proposal(path: Path, space: Space, parameters: int) -> None:
    """What a kill leaves between `ask` and the name: so many of the parameters are drawn."""
    ledger = open_ledger(path, CONFIG, space)
    study = optuna.load_study(study_name="night", storage=f"sqlite:///{path}")
    if ledger.proposed == 0:
        study.enqueue_trial(space.point_of(CONFIG.train), user_attrs={"hand_tuned": True})
    study.sampler = make_sampler(
        CONFIG, ledger.proposed, standings_of(ledger.trials, space, CONFIG)
    )
    trial = study.ask()
    if parameters >= 1:
        trial.suggest_categorical("loss.name", ["cross_entropy", "focal"])
    if parameters >= 2:
        trial.suggest_float("optim.decoder_lr", 1e-4, 5e-3, log=True)


# --- proposals ---------------------------------------------------------------------------------


def test_the_first_proposal_is_the_hand_tuned_point(tmp_path: Path, space: Space) -> None:
    ledger = open_ledger(tmp_path / "study.db", CONFIG, space)
    assert [ledger.propose(), ledger.propose()] == ["trial_000", "trial_001"]
    assert ledger.points["trial_000"] == space.point_of(CONFIG.train)
    assert ledger.points["trial_001"] != space.point_of(CONFIG.train)
    first, second = read_trials(tmp_path / "study.db", "night")
    assert first.user_attrs == {"hand_tuned": True, "trial_id": "trial_000"}
    assert second.user_attrs == {"trial_id": "trial_001"}


@pytest.mark.parametrize("name", ["aug_loss", "extras", "full", "model", "optim"])
def test_the_first_proposal_is_the_hand_tuned_point_of_conditional_spaces_too(
    tmp_path: Path, name: str
) -> None:
    space = load_space(name)
    ledger = open_ledger(tmp_path / "study.db", CONFIG, space)
    assert ledger.points[ledger.propose()] == space.point_of(CONFIG.train)


def with_first(space: Space) -> Space:
    changes: tuple[Point, ...] = ({"loss.name": "focal"}, {"optim.decoder_lr": 0.002})
    return replace(space, first=changes)


def test_what_the_space_says_is_tried_right_after_the_hand_tuned_point(
    tmp_path: Path, space: Space
) -> None:
    ledger = open_ledger(tmp_path / "study.db", CONFIG, with_first(space))
    points = [ledger.points[ledger.propose()] for _ in range(4)]
    rate = CONFIG.train.optim.decoder_lr
    assert points[:3] == [
        {"loss.name": "cross_entropy", "optim.decoder_lr": rate},
        {"loss.name": "focal", "loss.gamma": 2.0, "optim.decoder_lr": rate},
        {"loss.name": "cross_entropy", "optim.decoder_lr": 0.002},
    ]
    assert points[3] not in points[:3]
    hand_tuned = [trial.user_attrs.get("hand_tuned", False) for trial in ledger.trials]
    assert hand_tuned == [True, False, False, False]


def test_what_is_tried_first_is_the_same_whenever_the_search_is_killed(
    tmp_path: Path, space: Space
) -> None:
    space = with_first(space)
    whole = open_ledger(tmp_path / "whole.db", CONFIG, space)
    expected = [whole.points[whole.propose()] for _ in range(5)]
    path = tmp_path / "killed.db"
    points = []
    for number in range(5):
        ledger = open_ledger(path, CONFIG, space)
        if number < 3:  # killed between the queueing of a point and its proposal
            study = optuna.load_study(study_name="night", storage=f"sqlite:///{path}")
            attrs = {"hand_tuned": True} if number == 0 else None
            study.enqueue_trial(space.first_points(CONFIG.train)[number], user_attrs=attrs)
        if number == 2:  # and in the midst of one
            study.ask()
        ledger = open_ledger(path, CONFIG, space)
        points.append(ledger.points[ledger.propose()])
    assert points == expected


def test_the_same_seed_gives_the_same_proposals_when_told_the_same(
    tmp_path: Path, space: Space
) -> None:
    once, again = (open_ledger(tmp_path / f"{name}.db", CONFIG, space) for name in "ab")
    points = [play(once) for _ in range(8)]
    assert points == [play(again) for _ in range(8)]
    assert all(one != other for one, other in pairwise(points))


def test_another_seed_gives_other_proposals_after_the_hand_tuned_one(
    tmp_path: Path, space: Space
) -> None:
    other = CONFIG.model_copy(update={"search": CONFIG.search.model_copy(update={"seed": 5})})
    first, second = (
        open_ledger(tmp_path / "a.db", CONFIG, space),
        open_ledger(tmp_path / "b.db", other, space),
    )
    once, again = [play(first) for _ in range(4)], [play(second) for _ in range(4)]
    assert once[0] == again[0]
    assert all(one != two for one, two in zip(once[1:], again[1:], strict=True))


def test_proposals_after_the_start_up_depend_on_the_results(tmp_path: Path, space: Space) -> None:
    proposals = []
    for sign in (1, -1):
        ledger = open_ledger(tmp_path / f"{sign}.db", CONFIG, space)
        for _ in range(8):
            name = ledger.propose()
            score = 0.5 + sign * 100 * float(ledger.points[name]["optim.decoder_lr"])
            ledger.record_epoch(name, 9, score)
            ledger.end(name, "finished", {})
        proposals.append(ledger.points[ledger.propose()])
    assert proposals[0] != proposals[1]


def test_proposals_learn_from_trials_under_way_and_are_the_same_after_a_kill(
    tmp_path: Path, space: Space
) -> None:
    """Four at once, none has ended: after the start-up of three, what they have shown counts."""
    proposals = []
    for name, scores in (("a", (0.1, 0.2, 0.3, 0.4)), ("b", (0.4, 0.3, 0.2, 0.1)), ("c", ())):
        path = tmp_path / f"{name}.db"
        ledger = open_ledger(path, CONFIG, space)
        names = [ledger.propose() for _ in range(4)]
        for trial, score in zip(names, scores, strict=False):
            ledger.record_epoch(trial, 3, score)  # the first rung
        path.with_suffix(".killed").write_bytes(path.read_bytes())
        proposals.append(ledger.points[ledger.propose()])
        killed = Ledger(path.with_suffix(".killed"), CONFIG, space)
        assert killed.points[killed.propose()] == proposals[-1]
    assert proposals[0] != proposals[1] != proposals[2]


# --- how trials end ----------------------------------------------------------------------------


def test_a_finished_trials_value_is_its_best_score_so_far_at_the_last_epoch(
    tmp_path: Path, space: Space
) -> None:
    ledger = open_ledger(tmp_path / "study.db", CONFIG, space)
    name = ledger.propose()
    for epoch, score in ((1, 0.25), (2, 0.5), (3, 0.5)):
        ledger.record_epoch(name, epoch, score)
    ledger.end(name, "finished", {"epoch": 3, "best_epoch": 2, "best_miou": 0.5})
    [trial] = ledger.trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.5)
    assert trial.intermediate_values == {1: 0.25, 2: 0.5, 3: 0.5}
    assert (trial.user_attrs["epoch"], trial.user_attrs["best_epoch"]) == (3, 2)
    assert ledger.open == {}


def test_a_pruned_trial_is_not_complete_and_a_failed_one_keeps_its_error(
    tmp_path: Path, space: Space
) -> None:
    ledger = open_ledger(tmp_path / "study.db", CONFIG, space)
    pruned, failed = ledger.propose(), ledger.propose()
    ledger.record_epoch(pruned, 1, 0.0)
    ledger.end(pruned, "pruned", {"epoch": 1})
    ledger.end(failed, "failed", {"error": "NonFiniteError: nan"})
    first, second = ledger.trials
    assert (first.state, first.value) == (TrialState.PRUNED, 0.0)  # a score of zero is a score
    assert (second.state, second.value) == (TrialState.FAIL, None)
    assert second.user_attrs["error"] == "NonFiniteError: nan"


# --- killed and opened again -------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, space: Space) -> list[Point]:
    ledger = open_ledger(tmp_path_factory.mktemp("undisturbed") / "study.db", CONFIG, space)
    return [play(ledger) for _ in range(8)]


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kills=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 2)), max_size=4))
def test_proposals_do_not_depend_on_kills_even_in_the_middle_of_one(
    tmp_path_factory: pytest.TempPathFactory,
    space: Space,
    undisturbed: list[Point],
    kills: list[tuple[int, int]],
) -> None:
    """A kill before trial n, that leaves a proposal with k parameters behind."""
    folder = tmp_path_factory.mktemp("kills")
    found = []
    for number in range(8):
        for at, parameters in kills:
            if at == number:
                cut_off_a_proposal(folder / "b.db", space, parameters)
        found.append(play(open_ledger(folder / "b.db", CONFIG, space)))
    assert found == undisturbed
    reopened = open_ledger(folder / "b.db", CONFIG, space)
    assert [trial.user_attrs["trial_id"] for trial in reopened.trials] == [
        f"trial_{number:03d}" for number in range(8)
    ]
    assert [trial.user_attrs.get("hand_tuned", False) for trial in reopened.trials] == [
        number == 0 for number in range(8)
    ]


def test_a_queued_first_point_that_was_never_asked_for_is_not_queued_twice(
    tmp_path: Path, space: Space
) -> None:
    open_ledger(tmp_path / "study.db", CONFIG, space)
    study = optuna.load_study(study_name="night", storage=f"sqlite:///{tmp_path}/study.db")
    study.enqueue_trial(space.point_of(CONFIG.train), user_attrs={"hand_tuned": True})
    ledger = open_ledger(tmp_path / "study.db", CONFIG, space)
    play(ledger)
    play(ledger)
    assert [trial.user_attrs.get("hand_tuned", False) for trial in ledger.trials] == [True, False]


def test_a_cut_off_proposal_is_marked_failed_and_is_no_trial(tmp_path: Path, space: Space) -> None:
    path = tmp_path / "study.db"
    play(open_ledger(path, CONFIG, space))
    cut_off_a_proposal(path, space, parameters=1)
    ledger = open_ledger(path, CONFIG, space)
    assert ledger.proposed == 1
    assert ledger.open == {}
    study = optuna.load_study(study_name="night", storage=f"sqlite:///{path}")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.FAIL]


def test_open_trials_come_back_with_their_point_epochs_and_arrivals(
    tmp_path: Path, space: Space
) -> None:
    path = tmp_path / "study.db"
    before = open_ledger(path, CONFIG, space)
    play(before)
    name = before.propose()
    for epoch, score in ((1, 0.1), (2, 0.3), (3, 0.3)):
        before.record_epoch(name, epoch, score)
    before.record_arrival(name, 1, before=4)
    before.record_arrival(name, 3, before=0)
    after = open_ledger(path, CONFIG, space)
    assert list(after.open) == ["trial_001"]
    assert after.open[name].scores == {1: 0.1, 2: 0.3, 3: 0.3}
    assert after.open[name].arrivals == {1: 4, 3: 0}
    assert after.points == before.points
    after.record_epoch(name, 3, 0.3)
    after.record_epoch(name, 4, 0.7)
    after.end(name, "finished", {})
    assert after.trials[1].value == 0.7
    assert after.trials[1].user_attrs["rungs"] == {"1": 4, "3": 0}


def test_an_epoch_is_entered_once(tmp_path: Path, space: Space) -> None:
    """A trial that was taken up again repeats its last epoch."""
    ledger = open_ledger(tmp_path / "study.db", CONFIG, space)
    name = ledger.propose()
    ledger.record_epoch(name, 1, 0.25)
    ledger.record_epoch(name, 1, 0.75)
    assert read_trials(tmp_path / "study.db", "night")[0].intermediate_values == {1: 0.25}


def test_rungs_are_read_in_the_order_of_arrival(tmp_path: Path, space: Space) -> None:
    ledger = open_ledger(tmp_path / "study.db", CONFIG, space)
    names = [ledger.propose() for _ in range(3)]
    for place, (name, score) in enumerate(zip(reversed(names), (0.3, 0.2, 0.1), strict=True)):
        ledger.record_epoch(name, 3, score)
        ledger.record_arrival(name, 3, before=place)
    rungs = read_rungs(ledger.trials)
    assert list(rungs[3].items()) == [("trial_002", 0.3), ("trial_001", 0.2), ("trial_000", 0.1)]
    assert ledger.rungs() == rungs
