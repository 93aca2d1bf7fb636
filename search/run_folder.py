"""Where a run keeps what it leaves; every path is named here and nowhere else."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from search.config import SearchConfig
from search.ledger import create_ledger
from search.space import Space, load_space
from trashseg.config_file import nearest, read_yaml, validate, write_yaml
from trashseg.data.cache import dataset_key
from trashseg.data.coco import CocoDataset, load_coco
from trashseg.data.folds import Folds, read_folds, write_folds
from trashseg.errors import ConfigError, TrashSegError
from trashseg.files import new_folder, write_json


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
    def finals_json(self) -> Path:
        """The final choice; see search/finals.py."""
        return self.path / "finals.json"

    @property
    def results_json(self) -> Path:
        """What helped; see search/ablation.py."""
        return self.path / "results.json"

    @property
    def results_page(self) -> Path:
        return self.path / "results.md"

    @property
    def report(self) -> Path:
        """What came out, as a page; see search/report."""
        return self.path / "report.html"

    @property
    def figures(self) -> Path:
        """The page's figures as PNG."""
        return self.path / "figures"

    @property
    def dataset_json(self) -> Path:
        """Which photos and polygons the run is about: {"key": `dataset_key`}."""
        return self.path / "dataset.json"

    @property
    def pace_json(self) -> Path:
        """How fast the last command trained; see search/status.py."""
        return self.path / "pace.json"

    def trial(self, name: str) -> Path:
        """What an open trial goes on with, and the best finished ones leave (search/kept_weights.py)."""
        return self.path / "trials" / name

    def trial_fold(self, name: str, fold: int) -> Path:
        """Checkpoints and pseudo labels, as they lie in `fold`."""
        return self.trial(name) / f"fold_{fold}"

    @property
    def mlflow(self) -> Path:
        """What MLflow has and does not have yet; see search/tracking.py."""
        return self.path / "mlflow"

    @property
    def mlflow_runs(self) -> Path:
        """Which MLflow run belongs to what, a line each: {"parent": id}, {"trial/ID": id}."""
        return self.mlflow / "runs.jsonl"

    @property
    def ensemble(self) -> Path:
        return self.path / "ensemble"

    @property
    def model_card(self) -> Path:
        """What the ensemble is, in words; see search/model_card.py."""
        return self.ensemble / "model_card.md"

    def best(self, rank: int) -> Path:
        return self.path / "best" / f"{rank}.yaml"

    def fold(self, trial: str, fold: int) -> Path:
        """The trial's configuration, trained without `fold`; ranks may change when trials are added."""
        return self.path / "folds" / trial / str(fold)

    def create(
        self, config: SearchConfig, space: Space, dataset: CocoDataset, folds: Folds
    ) -> None:
        """Make the folder with the resolved configuration, whole or not at all."""
        with new_folder(self.path) as folder:
            new = RunFolder(folder)
            write_yaml(new.space_yaml, space_tree(space))
            write_folds(new.folds_json, dataset, folds)
            write_json(new.dataset_json, {"key": dataset_key(dataset)})
            create_ledger(new.study_db, config.search.name)
            new.keep(config)

    def keep(self, config: SearchConfig) -> None:
        write_yaml(self.search_yaml, config.model_dump(mode="json"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps every other command from changing the run; released when the process dies."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self._lock()
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise TrashSegError(
                f"{self.path}: another command works on this run: wait for it or stop it"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool:
        """Whether a command works on the run now."""
        lock = self._lock()
        if not Path(lock.lock_file).is_file():
            return False
        try:
            lock.acquire(timeout=0).lock.release()
        except Timeout:
            return True
        return False

    def _lock(self) -> FileLock:
        """Beside the folder, which a new run does not have yet."""
        return FileLock(self.path.parent / f".{self.path.name}.lock")

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

    def mlflow_ids(self) -> dict[str, str]:
        """{what: the id of its MLflow run}."""
        if not self.mlflow_runs.is_file():
            return {}
        whole, _, _ = self.mlflow_runs.read_text().rpartition("\n")  # a line may be half-written
        return {what: run for line in whole.splitlines() for what, run in json.loads(line).items()}


def new_run_folder(config: SearchConfig) -> RunFolder:
    """Where the run will be; nothing is written yet. ConfigError where something is there."""
    run = RunFolder(Path(config.search.storage) / config.search.name)
    if run.path.exists():
        raise ConfigError(
            f"{run.path}: a run of this name exists: add --resume to go on with it, choose another "
            "--name, or delete it"
        )
    return run


def space_tree(space: Space) -> dict[str, Any]:
    """As a file says it."""
    parameters = {
        path: parameter.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        for path, parameter in space.parameters.items()
    }
    return {**parameters, **({"first": list(space.first)} if space.first else {})}


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


def photos_of(model: Path) -> Path | None:
    """The folder of photos that the run of `model` (an ensemble or a fold in runs/NAME) is about, if it
    is still there."""
    for folder in model.resolve().parents:
        run = RunFolder(folder)
        if run.search_yaml.is_file():
            data = Path(run.config.search.data_dir)
            return data if data.is_dir() else None
    return None
