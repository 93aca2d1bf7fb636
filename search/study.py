"""A study: named variants of one configuration, each trained on several folds with several seeds.

runs/NAME/settings.yaml   the configuration that all variants share, and where it runs
runs/NAME/study.yaml      the variants
runs/NAME/folds/VARIANT_seed_SEED/FOLD/   each training (trashseg/member.py)
runs/NAME/study.csv       a row for each training
runs/NAME/study.json      each variant's mean and spread, and what it is against the baseline

A study file (configs/studies) maps names of variants to the keys in which they differ:

    baseline: plain
    base: {schedule.name: constant}
    variants:
      plain: {}
      flipped: {augment.vertical_flip.p: 0.5}
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import field_validator, model_validator

from search.config import SearchConfig
from search.driver import check_training
from search.retrain import train_folds
from search.run_folder import RunFolder
from search.space import Value, changed
from search.study_results import StudyResults, Training, read_results, write_results
from search.tracking import Tracker, check_store
from trashseg.config import TrainConfig, fingerprint
from trashseg.config_file import nearest, read_yaml, validate, write_yaml
from trashseg.data.cache import dataset_key
from trashseg.data.coco import load_coco
from trashseg.data.folds import make_folds, write_folds
from trashseg.errors import ConfigError, NonFiniteError
from trashseg.files import new_folder, write_json
from trashseg.fold_models import FoldModel
from trashseg.sections import Section

STUDIES = Path(__file__).parent.parent / "configs" / "studies"


class StudyFile(Section):
    """What differs between the variants; what they share is a configuration beside it."""

    baseline: str
    """The variant that all others are compared with."""
    base: Mapping[str, Value] = {}
    """Keys that all variants change, by dotted path."""
    variants: Mapping[str, Mapping[str, Value]]
    """Keys that each variant changes after that; by its name, which is part of a folder's."""

    @field_validator("variants")
    @classmethod
    def _are_folder_names(
        cls, value: Mapping[str, Mapping[str, Value]]
    ) -> Mapping[str, Mapping[str, Value]]:
        wrong = [name for name in value if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)]
        if wrong:
            raise ValueError(f"{wrong[0]!r}: use letters, digits, '.', '_' and '-' only")
        return value

    @model_validator(mode="after")
    def _can_compare(self) -> "StudyFile":
        if self.baseline not in self.variants:
            raise ValueError(f"baseline {self.baseline!r}{nearest(self.baseline, self.variants)}")
        if len(self.variants) < 2:
            raise ValueError("a study needs two variants at least")
        return self

    def configs(self, config: TrainConfig, where: str) -> dict[str, TrainConfig]:
        """Each variant of `config`, by name. ConfigError for keys and values that do not work, and
        for two variants that are one."""
        found: dict[str, TrainConfig] = {}
        names: dict[str, str] = {}
        for name, values in self.variants.items():
            found[name] = changed(config, {**self.base, **values}, f"{where}, variant {name}")
            twin = names.setdefault(fingerprint(found[name]), name)
            if twin != name:
                raise ConfigError(
                    f"{where}: {twin} and {name} are the same configuration: change or remove one"
                )
        return found


def load_study(name_or_path: str) -> StudyFile:
    """A study of configs/studies by name, or a file."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = STUDIES / f"{name_or_path}.yaml"
        if not path.is_file():
            known = [file.stem for file in STUDIES.glob("*.yaml")]
            raise ConfigError(f"study {name_or_path}: unknown value{nearest(name_or_path, known)}")
    return validate(StudyFile, read_yaml(path), where=str(path))


@dataclass(frozen=True)
class StudyFolder(RunFolder):
    """runs/NAME of a study; what a search and a study both keep lies where a search keeps it."""

    @property
    def search_yaml(self) -> Path:
        """Under another name, because it is no search: `status` and `retrain` do not find it."""
        return self.path / "settings.yaml"

    @property
    def study_yaml(self) -> Path:
        return self.path / "study.yaml"

    @property
    def study_csv(self) -> Path:
        return self.path / "study.csv"

    @property
    def study_json(self) -> Path:
        return self.path / "study.json"


def run_study(
    study: StudyFile, config: SearchConfig, fold_count: int | None, seeds: int
) -> tuple[StudyFolder, StudyResults]:
    """Train what is missing of all variants on folds 0..fold_count-1 (default: all) with `seeds` seeds
    from the configuration's on; returns the folder and what came out.

    The same call goes on after a kill, and one with more folds or seeds adds to what is there. A
    training whose loss becomes NaN is counted as failed. Raises ConfigError before anything is written,
    and any other error of a training, after stopping the others.
    """
    run = StudyFolder(Path(config.search.storage) / config.search.name)
    variants = study.configs(config.train, where=f"study {config.search.name}")
    trainings = plan(run, variants, folds_of(config, fold_count), seeds_of(config, seeds))
    check_store(config.search.tracking_uri)
    with run.locked():
        prepare(run, study, config, variants)
        train_folds(
            run,
            [training.model for training in trainings],
            within=partial(parent_run, run=run, study=study, trainings=trainings),
            survived=(NonFiniteError,),
        )
    return run, read_results(run.study_json)


def folds_of(config: TrainConfig, count: int | None) -> range:
    count = config.data.folds if count is None else count
    if not 1 <= count <= config.data.folds:
        raise ConfigError(f"--folds {count}: data.folds is {config.data.folds}: ask for fewer")
    return range(count)


def seeds_of(config: TrainConfig, count: int) -> range:
    return range(config.seed, config.seed + count)


def plan(
    run: RunFolder, variants: Mapping[str, TrainConfig], folds: range, seeds: range
) -> list[Training]:
    """Every variant on a fold before the next fold, all folds before the next seed: what is there when
    a study is stopped can be compared."""
    return [
        Training(
            variant,
            seed,
            FoldModel(
                place,
                fold,
                run.fold(f"{variant}_seed_{seed}", fold),
                config.model_copy(update={"seed": seed}),
            ),
        )
        for seed in seeds
        for fold in folds
        for place, (variant, config) in enumerate(variants.items())
    ]


def prepare(
    run: StudyFolder, study: StudyFile, config: SearchConfig, variants: Mapping[str, TrainConfig]
) -> None:
    """Make the study's folder, or see that it is this study's; every photo is decoded and every network
    built once before."""
    dataset = load_coco(Path(config.search.data_dir))
    if run.path.exists():
        check_same_study(run, variants, dataset_key(dataset))
        write_yaml(run.study_yaml, study.model_dump(mode="json"))
        run.keep(config)
        return
    folds = make_folds(dataset, config.data)
    for variant in variants.values():
        check_training(variant, dataset, folds)
    with new_folder(run.path) as folder:
        new = StudyFolder(folder)
        write_yaml(new.study_yaml, study.model_dump(mode="json"))
        write_folds(new.folds_json, dataset, folds)
        write_json(new.dataset_json, {"key": dataset_key(dataset)})
        new.keep(config)


def check_same_study(run: StudyFolder, variants: Mapping[str, TrainConfig], key: str) -> None:
    """ConfigError where the folder is not one of this study; variants may come and go, and where it
    runs may differ."""
    if not run.study_yaml.is_file():
        raise ConfigError(f"{run.path}: exists and is no study: choose another --name")
    kept = load_study(str(run.study_yaml)).configs(run.config.train, where=str(run.study_yaml))
    other = [name for name in variants if name in kept and kept[name] != variants[name]]
    if other:
        raise ConfigError(
            f"{run.path}: holds a study in which {', '.join(other)} had other settings: choose "
            "another --name, or delete it"
        )
    if json.loads(run.dataset_json.read_text()) != {"key": key}:
        raise ConfigError(
            f"{run.path}: holds a study of other photos: choose another --name, or delete it"
        )


@contextmanager
def parent_run(
    tracker: Tracker, run: StudyFolder, study: StudyFile, trainings: list[Training]
) -> Iterator[None]:
    """The study's MLflow run, around those of its trainings; its results, when all are there."""
    config = run.config
    tracker.start("parent", config.search.name, config.train, {"kind": "study"})
    yield
    results = write_results(run.study_csv, run.study_json, study.baseline, trainings, config)
    tracker.log_file("parent", run.study_csv)
    tracker.log_file("parent", run.study_json)
    means = {variant.name: variant.mean for variant in results.variants}
    tracker.log_scores("parent", {name: {"mean": mean} for name, mean in means.items()})
    tracker.end("parent", "finished")
