"""A trial whose configuration wants pseudo labels trains with them, so that a space can search them."""

from pathlib import Path

import pytest
import torch

from search.config import SearchConfig, load_search_config
from search.run_folder import RunFolder
from search.space import Point, Space, load_space
from search.trainable import TrialSetting, build_training
from trashseg.data.coco import load_coco
from trashseg.data.folds import make_folds

pytestmark = pytest.mark.slow

SPACE = """
pseudo.name: {choice: [none, validation]}
pseudo.threshold: {float: [0.05, 1.0], when: {pseudo.name: [validation]}}
pseudo.share: {float: [0.1, 0.6], when: {pseudo.name: [validation]}}
"""


@pytest.fixture
def space(tmp_path: Path) -> Space:
    (tmp_path / "space.yaml").write_text(SPACE)
    return load_space(str(tmp_path / "space.yaml"))


@pytest.fixture
def config(sample: Path) -> SearchConfig:
    small = ["epochs=1", "batch_size=4", "data.image_size=32", "data.folds=2", "model.weights=none"]
    pseudo = ["pseudo.name=validation", "pseudo.least_sure=0", "search.grace_period=1"]
    return load_search_config(None, [f"search.data_dir={sample}", *small, *pseudo])


def test_points_of_a_space_of_pseudo_labels_train_different_networks(
    space: Space, config: SearchConfig, tmp_path: Path
) -> None:
    dataset = load_coco(Path(config.search.data_dir))
    folds, run = make_folds(dataset, config.data), RunFolder(tmp_path / "run")
    setting = TrialSetting(run, config, space, folds, "session", cpus=1, gpu_memory=1.0)
    points: list[Point] = [
        {"pseudo.name": "none"},
        {"pseudo.name": "validation", "pseudo.threshold": 0.2, "pseudo.share": 0.5},
        {"pseudo.name": "validation", "pseudo.threshold": 1.0, "pseudo.share": 0.5},
        {"pseudo.name": "validation", "pseudo.threshold": 0.2, "pseudo.share": 0.3},
    ]
    weights, heard = [], []
    for number, point in enumerate(points):
        training = build_training(
            point,
            setting,
            1,
            run.trial_fold(str(number), 1),
            lambda metrics: heard.append(metrics["round"]),
        )
        assert len(training.history) == 0
        assert training.next_epoch()["finished"]
        weights.append(training.last_weights())
    assert heard == [0, 0, 0], "each trial with pseudo labels trains a teacher first"
    for one in range(4):
        for other in range(one):
            assert any(
                not torch.equal(weights[one][name], weights[other][name]) for name in weights[one]
            )
    again = build_training(points[1], setting, 1, run.trial_fold("1", 1))
    assert again.finished, "and goes on where it was, without another teacher"
