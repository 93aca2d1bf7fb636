"""Which trials' weights outlive them, and how such a trial becomes its fold."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from search.config import SearchConfig, load_search_config
from search.kept_weights import KeptWeights
from search.ledger import State
from search.run_folder import RunFolder
from search.space import Point, Space, load_space
from search.trainable import TrialSetting, build_training
from trashseg.data.coco import load_coco
from trashseg.data.folds import make_folds
from trashseg.device import local_resources
from trashseg.fold_models import FoldModel
from trashseg.rounds import train_in_rounds

# --- which ---------------------------------------------------------------------------------------


def trial_with_weights(run: RunFolder, name: str) -> None:
    (run.trial_fold(name, 0) / "checkpoints" / "epoch_0009").mkdir(parents=True)
    (run.trial(name) / "attempts.json").write_text("[]")


def with_weights(run: RunFolder) -> set[str]:
    return {folder.parent.name for folder in run.path.glob("trials/*/fold_*")}


def config_of(**search: object) -> SearchConfig:
    return SearchConfig.model_validate({"search": {"finalists": 2, **search}})


ENDS: list[tuple[str, State, float, set[str]]] = [  # and whose weights are there after it
    ("trial_000", "finished", 0.5, {"trial_000"}),
    ("trial_001", "pruned", 0.9, {"trial_000"}),
    ("trial_002", "finished", 0.4, {"trial_000", "trial_002"}),
    ("trial_003", "finished", 0.4, {"trial_000", "trial_002"}),  # no better than the older one
    ("trial_004", "failed", 0.0, {"trial_000", "trial_002"}),
    ("trial_005", "finished", 0.6, {"trial_000", "trial_005"}),
    ("trial_006", "finished", 0.55, {"trial_005", "trial_006"}),
]


def test_the_best_finished_trials_keep_their_weights_until_they_are_overtaken(
    tmp_path: Path,
) -> None:
    run = RunFolder(tmp_path / "night")
    weights = KeptWeights(run, config_of())
    for name, state, score, kept in ENDS:
        trial_with_weights(run, name)
        weights.trial_ended(name, state, {"best_miou": score, "best_miou_image": 1 - score})
        assert with_weights(run) == kept, name
    assert len(list(run.path.glob("trials/*/attempts.json"))) == len(ENDS), "attempts stay"


def test_of_two_equals_the_older_one_keeps_its_weights_also_if_it_ended_later(
    tmp_path: Path,
) -> None:
    run = RunFolder(tmp_path / "night")
    weights = KeptWeights(run, config_of(finalists=1))
    for name in ("trial_1000", "trial_999"):
        trial_with_weights(run, name)
        weights.trial_ended(name, "finished", {"best_miou": 0.5})
    assert with_weights(run) == {"trial_999"}


def test_where_nodes_share_no_folder_no_trial_keeps_its_weights(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "night")
    trial_with_weights(run, "trial_000")
    weights = KeptWeights(run, config_of(checkpoint_uri=f"file://{tmp_path}/bucket"))
    weights.trial_ended("trial_000", "finished", {"best_miou": 0.5})
    assert with_weights(run) == set()


def test_half_of_what_a_kill_left_of_dropped_weights_is_not_taken_over_and_goes_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "night")
    weights = KeptWeights(run, config_of(finalists=1))
    for name in ("trial_000", "trial_001"):
        trial_with_weights(run, name)
    weights.trial_ended("trial_000", "finished", {"best_miou": 0.5})

    def killed_in_the_midst(folder: Path) -> None:
        (folder / "checkpoints" / "epoch_0009").rmdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as kill:
        kill.setattr("shutil.rmtree", killed_in_the_midst)
        with pytest.raises(KeyboardInterrupt):
            weights.trial_ended("trial_001", "finished", {"best_miou": 0.6})
    half = FoldModel(0, 0, run.fold("trial_000", 0), SearchConfig().train)
    assert not weights.has(half)

    again = KeptWeights(run, config_of(finalists=1))
    for name, score in (("trial_000", 0.5), ("trial_001", 0.6)):
        again.trial_ended(name, "finished", {"best_miou": score})
    assert with_weights(run) == {"trial_001"}


# --- what becomes of them --------------------------------------------------------------------------


@pytest.fixture
def space(tmp_path: Path) -> Space:
    (tmp_path / "space.yaml").write_text("pseudo.name: {choice: [none, validation]}\n")
    return load_space(str(tmp_path / "space.yaml"))


@pytest.fixture
def setting(sample: Path, space: Space, tmp_path: Path) -> TrialSetting:
    small = ["epochs=2", "batch_size=4", "data.image_size=32", "data.folds=2", "model.weights=none"]
    pseudo = ["pseudo.name=validation", "pseudo.least_sure=0", "search.grace_period=1"]
    config = load_search_config(None, [f"search.data_dir={sample}", *small, *pseudo])
    folds = make_folds(load_coco(sample), config.data)
    run = RunFolder(tmp_path / "run")
    return TrialSetting(run, config, space, folds, "session", cpus=1, gpu_memory=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["none", "validation"])
@pytest.mark.parametrize("killed", [False, True])
def test_a_finished_trial_becomes_its_fold_and_nothing_is_trained_again(
    setting: TrialSetting, labels: str, killed: bool
) -> None:
    """Of the same training made anew only the seconds differ."""
    run, point = setting.run, Point({"pseudo.name": labels})
    kept = run.trial_fold("trial_003", 1)
    trial = build_training(point, setting, 1, kept)
    while not trial.finished:
        trial.next_epoch()
    config = setting.space.apply(setting.config.train, point)
    dataset = load_coco(Path(setting.config.search.data_dir))
    taken, anew = (
        FoldModel(0, 1, run.fold(name, 1), config) for name in ("trial_003", "trial_007")
    )
    if killed:  # in the midst of the moving
        taken.folder.mkdir(parents=True)
        (kept / "checkpoints").rename(taken.folder / "checkpoints")
    heard = []
    scores = []
    for model in (taken, anew):
        model.folder.mkdir(parents=True, exist_ok=True)
        KeptWeights(run, setting.config).take_over(model)
        scores.append(
            train_in_rounds(
                config, dataset, setting.folds, 1, model.folder, local_resources(1),
                on_epoch=lambda metrics, of=model: heard.append(of.name),
            )
        )  # fmt: skip
    epochs = 2 if labels == "none" else 4  # with those of a teacher
    assert heard == [anew.name] * epochs
    assert not kept.exists()
    assert scores[0] == scores[1]
    history = [json.loads(line) for line in (taken.folder / "history.jsonl").open()]
    assert history == trial.history
    files = [{file.relative_to(m.folder) for file in m.folder.rglob("*")} for m in (taken, anew)]
    assert {str(path) for path in files[0] - files[1]} == {"from_search"}
    assert files[1] <= files[0]
    for name in ("config.yaml", "folds.json"):
        assert (taken.folder / name).read_bytes() == (anew.folder / name).read_bytes()
    one, other = (load_file(model.folder / "model.safetensors") for model in (taken, anew))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_fold_that_the_search_has_not_trained_begins_anew(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "night")
    trial_with_weights(run, "trial_000")
    for name, fold in (("trial_000", 1), ("trial_000_seed_22", 0), ("trial_001", 0)):
        model = FoldModel(0, fold, run.fold(name, fold), SearchConfig().train)
        model.folder.mkdir(parents=True)
        KeptWeights(run, config_of()).take_over(model)
        assert list(model.folder.iterdir()) == []
    assert with_weights(run) == {"trial_000"}


def test_what_lies_on_a_node_with_a_folder_of_its_own_is_left_alone(tmp_path: Path) -> None:
    """It may be of an earlier run of that name."""
    run = RunFolder(tmp_path / "night")
    trial_with_weights(run, "trial_000")
    model = FoldModel(0, 0, run.fold("trial_000", 0), SearchConfig().train)
    model.folder.mkdir(parents=True)
    apart = KeptWeights(run, config_of(checkpoint_uri=f"file://{tmp_path}/bucket"))
    assert not apart.has(model)
    apart.take_over(model)
    assert list(model.folder.iterdir()) == []
    assert KeptWeights(run, config_of()).has(model)
