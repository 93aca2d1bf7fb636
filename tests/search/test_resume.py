"""Which search may be gone on with, and the key that is named where it may not."""

import shutil
from pathlib import Path

import pytest

from search.config import SearchConfig, load_search_config
from search.driver import run_search
from search.ledger import Ledger
from search.resume import check_same_search, check_trials, differences
from search.run_folder import RunFolder, new_run_folder
from search.space import load_space
from trashseg.data.coco import load_coco
from trashseg.data.folds import stratify
from trashseg.data.sample import write_sample
from trashseg.errors import ConfigError


def make_config(folder: Path, data: Path, *overrides: str) -> SearchConfig:
    given = [
        "search.name=night", f"search.storage={folder}", f"search.data_dir={data}", "search.trials=4",
        f"search.tracking_uri=sqlite:///{folder}/mlflow.db", "search.space=optim", "epochs=9",
    ]  # fmt: skip
    return load_search_config(None, [*given, *overrides])


@pytest.fixture
def run(tmp_path: Path, sample: Path) -> RunFolder:
    config, dataset = make_config(tmp_path, sample), load_coco(sample)
    run = new_run_folder(config)
    run.create(config, load_space("optim"), dataset, stratify(dataset, 5, 0))
    return run


def check(run: RunFolder, data: Path, *overrides: str) -> None:
    config = make_config(run.path.parent, data, *overrides)
    check_same_search(run, config, load_space(config.search.space), load_coco(data))


@pytest.mark.parametrize(
    "override",
    [
        "search.trials=40", "search.address=auto", "search.max_failures=9", "search.cpus_per_trial=2",
        "search.gpus_per_trial=0.5", "search.time_budget=8h", "search.min_free_gb=0.5",
    ],
)  # fmt: skip
def test_where_and_how_long_a_search_runs_may_change(
    run: RunFolder, sample: Path, override: str
) -> None:
    check(run, sample)
    check(run, sample, override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs=12", "epochs: is 12, the run's is 9: leave it as it was, or search under another"),
        ("metric=miou_image", "metric: is miou_image, the run's is miou: leave it"),
        ("search.grace_period=1", r"search\.grace_period: is 1, the run's is 3: "),
        ("search.seed=5", r"search\.seed: is 5, the run's is 0: "),
        ("search.folds=[0, 1]", r"search\.folds: is \[0, 1\], the run's is \[0\]: "),
        ("loss.name=dice", r"loss\.name: is dice, the run's is cross_entropy: "),
        ("data.image_size=128", r"data\.image_size: is 128, the run's is \d+: "),
    ],
)
def test_what_decides_the_result_may_not(
    run: RunFolder, sample: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(run, sample, override)


def test_another_space_is_refused_naming_what_differs(
    run: RunFolder, sample: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"search\.space: aug_loss says something else of "):
        check(run, sample, "search.space=aug_loss")
    moved = tmp_path / "moved.yaml"
    shutil.copy(run.space_yaml, moved)
    check(run, sample, f"search.space={moved}")


def test_other_photos_are_refused_and_the_same_ones_elsewhere_are_not(
    run: RunFolder, sample: Path, tmp_path: Path
) -> None:
    shutil.copytree(sample, tmp_path / "moved")
    check(run, tmp_path / "moved")
    write_sample(tmp_path / "other", images=20, size=64, seed=1)
    with pytest.raises(ConfigError, match=r"search\.data_dir: .*other holds other photos or polyg"):
        check(run, tmp_path / "other")


def test_fewer_trials_than_there_are_cannot_be_asked_for(run: RunFolder, sample: Path) -> None:
    ledger = Ledger(run.study_db, run.config, run.space)
    for _ in range(3):
        ledger.propose()
    check_trials(ledger, make_config(run.path.parent, sample, "search.trials=3"), run)
    with pytest.raises(
        ConfigError, match=r"--trials 2: .*night has 3 trials already: ask for more"
    ):
        check_trials(ledger, make_config(run.path.parent, sample, "search.trials=2"), run)


def test_resuming_what_was_never_started_is_refused(tmp_path: Path, sample: Path) -> None:
    with pytest.raises(ConfigError, match=r"--name night: no such run in .*start with launch\.py"):
        run_search(make_config(tmp_path / "runs", sample), resume=True)
    assert not (tmp_path / "runs").exists()


def test_differences_name_the_variant_before_its_parameters() -> None:
    was = {"a": 1, "loss": {"gamma": 2.0, "name": "focal"}}
    now = {"a": 1, "loss": {"name": "dice", "smooth": 1.0}}
    assert [key for key, _, _ in differences(was, now)] == [
        "loss.name",
        "loss.gamma",
        "loss.smooth",
    ]
