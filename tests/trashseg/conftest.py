"""What several tests of this package share."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.trashseg.trained_folds import Trained, train_tiny
from trashseg.crf import on_gpu
from trashseg.data.coco import CocoDataset, load_coco
from trashseg.data.folds import Folds, stratify
from trashseg.data.sample import write_sample


@pytest.fixture(scope="session")
def trained(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_tiny(sample, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def dataset(sample: Path) -> CocoDataset:
    return load_coco(sample)


@pytest.fixture(scope="session")
def folds(dataset: CocoDataset) -> Folds:
    """Four of `dataset`."""
    return stratify(dataset, 4, 0)


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six photos."""
    folder = tmp_path_factory.mktemp("unlabelled") / "photos"
    write_sample(folder, images=6, size=64, seed=5)
    return folder


@pytest.fixture
def large_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the CRF's kernels where they are interpreted: what takes time then are programs, not points."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(on_gpu, "POINTS", 1024)
        monkeypatch.setattr(on_gpu, "ENTRIES", 1024)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Draws arguments exactly as the process pool does."""
    with ThreadPoolExecutor(1) as threads:
        yield threads
