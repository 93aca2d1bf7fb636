"""What several tests of this package share."""

from pathlib import Path

import pytest

from tests.trashseg.trained_folds import Trained, train_tiny


@pytest.fixture(scope="session")
def trained(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_tiny(sample, tmp_path_factory.mktemp("runs") / "tiny")
