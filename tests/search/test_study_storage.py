"""The study in memory and in its file: both say the same."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from search.config import SearchConfig
from search.ledger import Ledger, create_ledger, make_sampler, standings_of
from search.space import Space, load_space
from search.study_storage import StudyStorage

CONFIG = SearchConfig.model_validate(
    {"epochs": 9, "search": {"name": "night", "startup_trials": 4, "seed": 7}}
)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    file = tmp_path_factory.mktemp("space") / "space.yaml"
    file.write_text(
        "loss.name: {choice: [cross_entropy, focal]}\n"
        "loss.gamma: {float: [0.5, 4.0], when: {loss.name: [focal]}}\n"
        "optim.decoder_lr: {float: [1.0e-4, 5.0e-3], log: true}\n"
        "schedule.step_size: {int: [1, 9]}\n"
    )
    return load_space(str(file))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create_ledger(tmp_path / "study.db", "night")
    return tmp_path / "study.db"


def read(path: Path) -> list[FrozenTrial]:
    """As Optuna itself reads the file."""
    return optuna.load_study(study_name="night", storage=f"sqlite:///{path}").trials


def facts(trials: list[FrozenTrial]) -> list[dict[str, Any]]:
    """All that a trial has, but for its id in the storage."""
    return [
        {key: value for key, value in vars(trial).items() if key != "_trial_id"} for trial in trials
    ]


# --- the file ----------------------------------------------------------------------------------


def play(ledger: Ledger, trials: int) -> None:
    """Trials that finish, are pruned, fail and stay open in turn."""
    for number in range(trials):
        name = ledger.propose()
        score = 1 / (2 + number)
        ledger.record_epoch(name, 1, score)
        ledger.record_arrival(name, 1, before=number)
        ledger.record_epoch(name, 3, 2 * score)
        if number % 4 == 0:
            ledger.end(name, "finished", {"epoch": 3, "best_miou": 2 * score})
        elif number % 4 == 1:
            ledger.end(name, "pruned", {"epoch": 3})
        elif number % 4 == 2:
            ledger.end(
                name, "failed", {"error": "ValueError: two", "traceback": 'a "quoted"\nline'}
            )


def test_optuna_reads_from_the_file_what_is_in_memory(path: Path, space: Space) -> None:
    ledger = Ledger(path, CONFIG, space)
    play(ledger, 9)
    assert facts(read(path)) == facts(ledger.trials)
    assert [trial.state for trial in read(path)[:4]] == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING
    ]  # fmt: skip


def test_opened_again_it_is_what_it_was(path: Path, space: Space) -> None:
    before = Ledger(path, CONFIG, space)
    play(before, 9)
    after = Ledger(path, CONFIG, space)
    assert facts(after.trials) == facts(before.trials)
    assert after.propose() == before.propose()
    assert after.points == before.points


def test_a_trial_is_in_the_file_once_it_is_kept(path: Path) -> None:
    storage = StudyStorage(path, "night")
    study = optuna.load_study(study_name="night", storage=storage)
    trial = study.ask()
    trial.suggest_float("rate", 0.0, 1.0)
    assert read(path) == []
    storage.keep(trial._trial_id)
    trial.set_user_attr("note", [1, None])
    [kept] = read(path)
    assert (kept.params, kept.user_attrs) == (trial.params, {"note": [1, None]})


def test_what_is_written_together_is_there_as_a_whole_or_not_at_all(path: Path) -> None:
    storage = StudyStorage(path, "night")
    trial = optuna.load_study(study_name="night", storage=storage).ask()
    storage.keep(trial._trial_id)
    trial.set_user_attr("first", 1)

    def cut_off() -> None:
        with storage.together():
            trial.set_user_attr("second", 2)
            trial.report(0.5, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    [kept] = read(path)
    assert (kept.user_attrs, kept.intermediate_values) == ({"first": 1}, {})


def test_an_attribute_that_is_set_again_has_its_newest_value(path: Path) -> None:
    storage = StudyStorage(path, "night")
    trial = optuna.load_study(study_name="night", storage=storage).ask()
    storage.keep(trial._trial_id)
    for rungs in ({"1": 0}, {"1": 0, "3": 4}):
        trial.set_user_attr("rungs", rungs)
    assert read(path)[0].user_attrs == {"rungs": {"1": 0, "3": 4}}


def test_proposals_are_those_that_optunas_own_storage_gives(
    tmp_path: Path, path: Path, space: Space
) -> None:
    ledger = Ledger(path, CONFIG, space)
    create_ledger(tmp_path / "other.db", "night")
    study = optuna.load_study(study_name="night", storage=f"sqlite:///{tmp_path}/other.db")
    study.enqueue_trial(space.point_of(CONFIG.train), user_attrs={"hand_tuned": True})
    open_trial = None
    for number in range(14):
        name = ledger.propose()
        named = study.get_trials(
            states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        )
        study.sampler = make_sampler(CONFIG, number, standings_of(named, space, CONFIG))
        trial = study.ask()
        assert space.sample(trial) == ledger.points[name]
        score = 1 - float(ledger.points[name]["optim.decoder_lr"])
        ledger.record_epoch(name, 3, score)
        trial.report(score, 3)
        if number == 5:
            open_trial = name
        elif number % 3 == 1:
            ledger.end(name, "pruned", {})
            study.tell(trial, state=TrialState.PRUNED)
        else:
            ledger.end(name, "finished", {})
            study.tell(trial, score)
    assert list(ledger.open) == [open_trial]
