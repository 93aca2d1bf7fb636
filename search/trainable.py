"""What runs in a Ray worker for one trial: a proposal becomes a configuration, epochs are reported."""

import tempfile
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from search.config import SearchConfig
from search.space import Point, Space

if TYPE_CHECKING:
    from trashseg.data.coco import CocoDataset
    from trashseg.data.folds import Folds


def run_trial(point: Point, config: SearchConfig, space: Space, folds_file: str, cpus: int) -> None:
    """Train the configuration at `point` on the search's fold; report each epoch to Tune.

    A trial that is started again after a crash goes on from its last reported epoch.
    """
    from trashseg.train import local_resources, train

    dataset, folds = _open_dataset(config.search.data_dir, folds_file)

    def report(metrics: dict[str, Any], checkpoint: Path) -> None:
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(checkpoint))

    with ExitStack() as stack:
        checkpoints = stack.enter_context(tempfile.TemporaryDirectory(prefix="trashseg-trial-"))
        last = tune.get_checkpoint()
        train(
            space.apply(config.train, point),
            dataset,
            folds,
            config.search.fold,
            report,
            checkpoints=Path(checkpoints),
            resources=local_resources(cpus),
            resume_from=Path(stack.enter_context(last.as_directory())) if last else None,
        )


@lru_cache(maxsize=2)
def _open_dataset(data_dir: str, folds_file: str) -> "tuple[CocoDataset, Folds]":
    """Read once per worker: actors are reused by the next trial."""
    from trashseg.data.coco import load_coco
    from trashseg.data.folds import read_folds

    dataset = load_coco(Path(data_dir))
    return dataset, read_folds(Path(folds_file), dataset)
