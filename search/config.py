"""Every setting of a search. A search file is a training configuration plus a `search:` section."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from trashseg.config import CrfConfig, TrainConfig, TtaConfig
from trashseg.config_file import merge, parse_overrides, read_yaml, validate
from trashseg.sections import Section

SQLITE = "sqlite:///"
# what a training does not know
OF_SEARCH = {"search", "selection_per_class", "tta", "logit_adjustment", "by_object", "crf"}
DURATION = re.compile(r"\d+(\.\d+)?[smh]")


class SearchSettings(Section):
    name: str = "search"
    """Name of the run: its folder under `storage`, its study, its MLflow run."""
    data_dir: str = "data"
    """Folder of the photos and their COCO json; kept as an absolute path, as are the two below, so
    that later commands find them from any folder."""
    storage: str = "runs"
    """Folder in which runs are kept."""
    checkpoint_uri: str | None = None
    """Where trials and folds under way are kept for other nodes: s3://BUCKET/FOLDER, gs://... or
    file:///..., and `storage` is then each node's own. null: in `storage`, which all nodes share."""
    tracking_uri: str = "sqlite:///mlflow.db"
    """MLflow store or server."""
    registered_model: str | None = "trashseg"
    """Name in MLflow's model registry under which `ensemble` registers what it built, one for all runs
    that compete to be its champion. null: nothing is registered."""
    space: str = "aug_loss"
    """Which search space: a file in configs/spaces, by name, or a path."""
    trials: PositiveInt = 20
    """Configurations that are tried; the first is the hand-tuned one that the file states."""
    folds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    """Folds that each trial trains in lockstep; what is compared is the mean over them."""
    seed: int = 0
    """Seeds the proposals."""
    startup_trials: PositiveInt = 10
    """Proposals are random until so many trials have reached the grace period; then the sampler (TPE)
    learns from what each has shown."""
    grace_period: PositiveInt = 3
    """Epochs that every trial gets before ASHA may stop it."""
    reduction_factor: Annotated[float, Field(gt=1.0)] = 3.0
    """Of those that have reached a rung the best 1 / reduction_factor go on, for as long as they are
    among them; the next rung is that many times later."""
    finalists: PositiveInt = 4
    """Finished trials that meet again, on more folds and seeds, before the best of them are trained on
    every fold; no more than those that are asked for: they do not meet."""
    final_rounds: PositiveInt = 5
    """Most rounds of that, each with one more fold, or one more seed where the folds are through."""
    gpus_per_trial: Literal["auto"] | Annotated[float, Field(ge=0.0)] = "auto"
    """GPUs of one trial; `auto`: one where there are GPUs, else none."""
    cpus_per_trial: Literal["auto"] | PositiveInt = "auto"
    """CPUs of one trial; `auto`: the CPUs divided by the trials that run at once."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How often a trial that crashed is started again from its last epoch; a lost node is no crash."""
    time_budget: str | None = None
    """Finish by then, from the start of the command: 90s, 45m, 8h; no trial is proposed that might
    not end in time. null: no limit."""
    min_free_gb: Annotated[float, Field(ge=0.0)] = 1.0
    """The search pauses while the disk of `storage` has less than this free."""
    address: str = "local"
    """Ray cluster: `local` starts one on this machine, `auto` or an address joins one."""

    @field_validator("data_dir", "storage")
    @classmethod
    def _absolute_folder(cls, value: str) -> str:
        return str(Path(value).resolve())

    @field_validator("tracking_uri")
    @classmethod
    def _absolute_sqlite(cls, value: str) -> str:
        if not value.startswith(SQLITE):
            return value
        return SQLITE + str(Path(value.removeprefix(SQLITE)).resolve())

    @field_validator("folds")
    @classmethod
    def _each_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("name each fold once")
        return value

    @field_validator("time_budget")
    @classmethod
    def _is_a_duration(cls, value: str | None) -> str | None:
        if value is not None and not DURATION.fullmatch(value):
            raise ValueError("use a number and s, m or h, such as 90m or 8h")
        return value

    @property
    def budget_seconds(self) -> float | None:
        """`time_budget` in seconds."""
        if self.time_budget is None:
            return None
        return float(self.time_budget[:-1]) * {"s": 1, "m": 60, "h": 3600}[self.time_budget[-1]]

    @field_validator("name", "registered_model")
    @classmethod
    def _is_a_folder_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError("use letters, digits, '.', '_' and '-' only")
        return value


class SearchConfig(TrainConfig):
    """The first trial's training configuration, and how to search around it."""

    search: SearchSettings = SearchSettings()
    selection_per_class: bool = False
    """Whether `ensemble` tries weights of the configurations for each class; kept if they help."""
    tta: TtaConfig = TtaConfig(views=("identity", "horizontal_flip"))
    """What `ensemble` tries; the ensemble has it if it helps. {views: [identity]} tries none."""
    logit_adjustment: tuple[Annotated[float, Field(gt=0.0)], ...] = ()
    """What `ensemble` tries after that, likewise, such as [0.1, 0.2, 0.3]: the vote for a class is
    multiplied by how many times rarer than the commonest one it is, to one of these powers. []: none."""
    by_object: bool = True
    """Whether `ensemble` tries after that, likewise, that each object is of one class: what its pixels
    say most for, in sum."""
    crf: CrfConfig = CrfConfig()
    """What `ensemble` tries after that, likewise."""

    @model_validator(mode="after")
    def _grace_period_ends(self) -> "SearchConfig":
        if self.search.grace_period > self.epochs:
            raise ValueError(
                f"search.grace_period ({self.search.grace_period}) is longer than a trial "
                f"(epochs: {self.epochs}); lower it or raise epochs"
            )
        for fold in self.search.folds:
            if fold >= self.data.folds:
                raise ValueError(
                    f"search.folds ({fold}) does not exist: there are folds 0 to "
                    f"{self.data.folds - 1}"
                )
        return self

    @property
    def train(self) -> TrainConfig:
        """The training configuration alone."""
        return TrainConfig.model_validate(self.model_dump(exclude=OF_SEARCH))

    @property
    def score_key(self) -> str:
        """The reported number that ASHA, Optuna and the leaderboard compare: the best epoch's."""
        return f"best_{self.metric}"


def load_search_config(path: Path | None, overrides: Iterable[str] = ()) -> SearchConfig:
    """Defaults, changed by the file, changed by `a.b=c` overrides; ConfigError lists all problems."""
    tree = merge(SearchConfig().model_dump(), read_yaml(path) if path else {}, SearchConfig)
    tree = merge(tree, parse_overrides(overrides), SearchConfig)
    return validate(SearchConfig, tree, where=str(path or "command line"))
