"""Where a run keeps what it leaves; every path is named here and nowhere else."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.config import SearchConfig
from search.space import Space, load_space
from trashseg.config import TrainConfig
from trashseg.config_file import load_train_config, nearest, read_yaml, validate, write_yaml
from trashseg.data.coco import CocoDataset, load_coco
from trashseg.data.folds import Folds, read_folds, write_folds
from trashseg.errors import ConfigError
from trashseg.files import write_json


@dataclass(frozen=True)
class RunFolder:
    """runs/NAME."""

    path: Path

    @property
    def search_yaml(self) -> Path:
        return self.path / "search.yaml"

    @property
    def space_yaml(self) -> Path:
        return self.path / "space.yaml"

    @property
    def folds_json(self) -> Path:
        return self.path / "folds.json"

    @property
    def study_db(self) -> Path:
        return self.path / "study.db"

    @property
    def leaderboard(self) -> Path:
        return self.path / "leaderboard.csv"

    @property
    def tune(self) -> Path:
        """Ray Tune's own files."""
        return self.path / "tune"

    @property
    def mlflow_runs(self) -> Path:
        """Which MLflow run belongs to what: {"parent": id, "trial/ID": id, "fold/K/F": id}."""
        return self.path / "mlflow_runs.json"

    @property
    def ensemble(self) -> Path:
        return self.path / "ensemble"

    def best(self, rank: int) -> Path:
        return self.path / "best" / f"{rank}.yaml"

    def fold(self, rank: int, fold: int) -> Path:
        return self.path / "folds" / str(rank) / str(fold)

    def create(
        self, config: SearchConfig, space: Space, dataset: CocoDataset, folds: Folds
    ) -> None:
        """Make the folder with the resolved configuration."""
        self.path.mkdir(parents=True)
        write_yaml(self.space_yaml, space_tree(space))
        write_folds(self.folds_json, dataset, folds)
        write_yaml(self.search_yaml, config.model_dump(mode="json"))

    # --- what lies there -----------------------------------------------------------------------

    @property
    def config(self) -> SearchConfig:
        return validate(SearchConfig, read_yaml(self.search_yaml), where=str(self.search_yaml))

    @property
    def space(self) -> Space:
        return load_space(str(self.space_yaml))

    def dataset(self) -> CocoDataset:
        return load_coco(Path(self.config.search.data_dir))

    def folds(self, dataset: CocoDataset) -> Folds:
        return read_folds(self.folds_json, dataset)

    def best_configs(self, top_k: int) -> list[TrainConfig]:
        """The `top_k` best configurations; ConfigError where the search left fewer."""
        configs = [
            load_train_config(self.best(rank)) for rank in range(top_k) if self.best(rank).is_file()
        ]
        if len(configs) < top_k:
            raise ConfigError(
                f"{self.path}: has {len(configs)} finished trials, --top-k is {top_k}: lower it"
            )
        return configs

    def mlflow_ids(self) -> dict[str, str]:
        return json.loads(self.mlflow_runs.read_text()) if self.mlflow_runs.is_file() else {}

    def remember_mlflow_id(self, what: str, run_id: str) -> None:
        write_json(self.mlflow_runs, {**self.mlflow_ids(), what: run_id})


def new_run_folder(config: SearchConfig) -> RunFolder:
    """Where the run will be; nothing is written yet. ConfigError where something is there."""
    run = RunFolder(Path(config.search.storage) / config.search.name)
    if run.path.exists():
        raise ConfigError(
            f"{run.path}: a run of this name exists: choose another --name or delete it"
        )
    return run


def space_tree(space: Space) -> dict[str, Any]:
    return {
        path: parameter.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        for path, parameter in space.parameters.items()
    }


def open_run_folder(name: str, storage: Path) -> RunFolder:
    """The run of that name; ConfigError, with the nearest name, where there is none."""
    run = RunFolder(storage.resolve() / name)
    if not run.search_yaml.is_file():
        known = [file.parent.name for file in storage.glob("*/search.yaml")]
        hint = (
            nearest(name, known)
            if known
            else f": {storage} has no runs, start with launch.py search"
        )
        raise ConfigError(f"--name {name}: no such run in {storage}{hint}")
    return run
