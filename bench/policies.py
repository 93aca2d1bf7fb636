"""The ways to search that are compared, each a searcher and a scheduler of Ray Tune."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from bench.lcbench import EPOCHS
from bench.simulation import SCORE
from search.config import load_search_config
from search.ledger import Ledger
from search.scheduler import SuccessiveHalving
from search.searcher import OptunaSearcher
from search.space import Parameter, Space
from search.study_storage import StudyInMemory

SETTINGS = Path(__file__).parent.parent / "configs" / "gpu.yaml"
ENDLESS = 10**9  # trials: a simulation ends by its epochs


@dataclass(frozen=True)
class Policy:
    searcher: Searcher
    scheduler: TrialScheduler
    epochs: int = EPOCHS
    """Of a trial that is not stopped."""


class LedgerInMemory(Ledger):
    """A search's ledger, except that nothing outlives the process."""

    @staticmethod
    def open_storage(path: Path, study_name: str) -> StudyInMemory:
        return StudyInMemory(study_name, [optuna.study.StudyDirection.MAXIMIZE])


def ours(space: Space, seed: int) -> Policy:
    """What `search` runs, with the settings of its configuration for long trainings."""
    config = load_search_config(SETTINGS, [f"epochs={EPOCHS}", f"search.seed={seed}"])
    ledger = LedgerInMemory(Path(config.search.name), config, space)
    scheduler = SuccessiveHalving(config, ledger)
    searcher = OptunaSearcher(ledger, ENDLESS, None, scheduler.stopped, may_propose=lambda: True)
    return Policy(searcher, scheduler)


def random_search(space: Space, seed: int) -> Policy:
    return Policy(_search(space, optuna.samplers.RandomSampler(seed)), _all_epochs())


def one_epoch(space: Space, seed: int) -> Policy:
    """As many configurations as possible, each for an epoch."""
    return Policy(_search(space, optuna.samplers.RandomSampler(seed)), _all_epochs(), epochs=1)


def tpe(space: Space, seed: int) -> Policy:
    """Optuna's sampler at its defaults, every trial to its end."""
    return Policy(_search(space, optuna.samplers.TPESampler(seed=seed)), _all_epochs())


def ray_asha(space: Space, seed: int) -> Policy:
    """Ray's ASHA with Ray's Optuna at their defaults; it is told how long a training is."""
    scheduler = AsyncHyperBandScheduler(metric=SCORE, mode="max", max_t=EPOCHS)
    return Policy(_search(space, optuna.samplers.TPESampler(seed=seed)), scheduler)


POLICIES: dict[str, Callable[[Space, int], Policy]] = {
    "ours": ours,
    "random": random_search,
    "one epoch": one_epoch,
    "TPE": tpe,
    "Ray ASHA + Optuna": ray_asha,
}


def _all_epochs() -> TrialScheduler:
    return FIFOScheduler()  # type: ignore[no-untyped-call]


def _search(space: Space, sampler: optuna.samplers.BaseSampler) -> OptunaSearch:
    distributions = {name: distribution(each) for name, each in space.parameters.items()}
    return OptunaSearch(distributions, metric=SCORE, mode="max", sampler=sampler)


def distribution(parameter: Parameter) -> BaseDistribution:
    """Optuna's name for a range."""
    if parameter.int_range:
        return IntDistribution(*parameter.int_range, log=parameter.log)
    assert parameter.float_range, "the benchmark has no choices"
    return FloatDistribution(*parameter.float_range, log=parameter.log)
