"""Where a run keeps what it leaves, and how it is found again."""

from pathlib import Path

import pytest

from search.config import SearchConfig, load_search_config
from search.run_folder import RunFolder, new_run_folder, open_run_folder
from search.space import load_space
from trashseg.config import TrainConfig
from trashseg.config_file import write_yaml
from trashseg.data.coco import load_coco
from trashseg.data.folds import stratify
from trashseg.errors import ConfigError


def make_config(storage: Path, name: str, data: Path | str = "data") -> SearchConfig:
    return load_search_config(
        None,
        [f"search.name={name}", f"search.storage={storage}", f"search.data_dir={data}"],
    )


def test_what_is_written_is_read_back_equal(tmp_path: Path, sample: Path) -> None:
    config, space = make_config(tmp_path, "night", sample), load_space("optim")
    dataset = load_coco(sample)
    folds = stratify(dataset, 5, 0)
    new_run_folder(config).create(config, space, dataset, folds)
    run = open_run_folder("night", tmp_path)
    assert run.config == config
    assert run.space.parameters == space.parameters
    assert (run.folds(run.dataset()).fold_of == folds.fold_of).all()


def test_a_new_run_writes_nothing_before_it_is_created(tmp_path: Path) -> None:
    run = new_run_folder(make_config(tmp_path / "runs", "night"))
    assert run.path == tmp_path / "runs" / "night"
    assert list(tmp_path.iterdir()) == []


def test_an_existing_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    with pytest.raises(ConfigError, match=r"night: a run of this name exists: choose another --n"):
        new_run_folder(make_config(tmp_path, "night"))


def test_an_unknown_name_is_told_the_nearest(tmp_path: Path) -> None:
    for name in ("night", "morning"):
        write_yaml(tmp_path / name / "search.yaml", {})
    with pytest.raises(ConfigError, match=r"--name nigth: no such run in .*did you mean 'night'\?"):
        open_run_folder("nigth", tmp_path)
    with pytest.raises(ConfigError, match=r"--name zzz: .*choose one of morning, night"):
        open_run_folder("zzz", tmp_path)


@pytest.mark.parametrize("exists", [True, False])
def test_a_storage_without_runs_says_how_to_start(tmp_path: Path, exists: bool) -> None:
    storage = tmp_path / "runs"
    if exists:
        (storage / "half").mkdir(parents=True)  # a folder that is no run
    with pytest.raises(ConfigError, match=r"has no runs, start with launch\.py search"):
        open_run_folder("half", storage)


def test_the_best_configurations_come_in_order_and_too_many_are_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "night")
    configs = [TrainConfig(epochs=epochs) for epochs in (3, 5)]
    for rank, config in enumerate(configs):
        write_yaml(run.best(rank), config.model_dump(mode="json"))
    assert run.best_configs(1) == configs[:1]
    assert run.best_configs(2) == configs
    with pytest.raises(ConfigError, match=r"night: has 2 finished trials, --top-k is 3: lower it"):
        run.best_configs(3)


def test_mlflow_ids_are_kept_one_by_one(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "night")
    assert run.mlflow_ids() == {}
    run.remember_mlflow_id("parent", "a")
    run.remember_mlflow_id("trial/trial_000", "b")
    assert RunFolder(tmp_path / "night").mlflow_ids() == {"parent": "a", "trial/trial_000": "b"}
