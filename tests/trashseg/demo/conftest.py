"""What the tests of the page and the interface share."""

from pathlib import Path

import pytest
import torch

from tests.trashseg.untrained_folds import write_untrained
from trashseg.data.coco import load_coco
from trashseg.demo.segment import Segmenter
from trashseg.device import Resources
from trashseg.ensemble import load_ensemble


@pytest.fixture(scope="session")
def untrained(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untrained") / "fold"
    write_untrained(folder, load_coco(sample))
    return folder


@pytest.fixture(scope="session")
def segmenter(untrained: Path) -> Segmenter:
    return Segmenter(load_ensemble(untrained, Resources(1, torch.device("cpu"))))
