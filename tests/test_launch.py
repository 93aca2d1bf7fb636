"""The door: every command says what it does at once, and brings in only what it needs."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import launch
from trashseg.config_file import load_train_config

ROOT = Path(launch.__file__).parent
COMMANDS = [
    ["data"],
    ["data", "check"],
    ["data", "sample"],
    ["search"],
    ["retrain"],
    ["status"],
    ["ui"],
    ["ensemble"],
    ["register"],
    ["export"],
    ["results"],
    ["report"],
    ["study"],
    ["tune-post"],
    ["train"],
    ["predict"],
    ["demo"],
    ["evaluate"],
]
HEAVY = ("torch", "ray", "mlflow", "optuna", "albumentations", "cv2", "numpy")
RUN_ALL = """
import json, sys
import launch
for arguments in json.loads(sys.argv[1]):
    try:
        launch.app(arguments)
    except SystemExit as stop:
        assert not stop.code, (arguments, stop.code)
print(json.dumps(sorted(sys.modules)))
"""


def _modules_after(commands: list[list[str]]) -> tuple[set[str], str]:
    """Run the commands in a fresh interpreter; what it has imported by then, and its stderr."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(commands)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1])), done.stderr


def test_every_registered_command_is_in_the_list_of_this_test() -> None:
    named = {command.name or command.callback.__name__ for command in launch.app.registered_commands
             if command.callback}  # fmt: skip
    assert named | {"data", "data check", "data sample"} == {
        " ".join(command) for command in COMMANDS
    }


def test_no_help_imports_torch_ray_or_mlflow() -> None:
    imported, _ = _modules_after([["--help"], *([*command, "--help"] for command in COMMANDS)])
    assert "launch" in imported
    assert not imported & set(HEAVY)


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_help_explains_every_option(command: list[str]) -> None:
    result = CliRunner().invoke(launch.app, [*command, "--help"], terminal_width=200)
    assert result.exit_code == 0
    assert "Usage" in result.stdout
    assert result.stderr == ""
    lines = [line.strip("│ ") for line in result.stdout.splitlines()]
    options = [line for line in lines if line.lstrip("* ").startswith("--")]
    assert options
    for option in options:
        assert option.rstrip(". ]").split("  ")[-1].strip().count(" ") >= 1, option


def test_launch_py_runs_as_a_script() -> None:
    done = subprocess.run(
        [sys.executable, "launch.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0
    for command in (
        "data",
        "search",
        "status",
        "ui",
        "retrain",
        "ensemble",
        "study",
        "tune-post",
        "train",
        "predict",
        "demo",
        "evaluate",
    ):
        assert command in done.stdout


def test_without_a_command_the_help_is_shown() -> None:
    result = CliRunner().invoke(launch.app, [])
    assert "Usage" in result.output


def test_data_sample_writes_the_scenes_that_were_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "scenes"
    arguments = ["data", "sample", str(out), "--images", "3", "--size", "40", "--seed", "2"]
    result = CliRunner().invoke(launch.app, arguments)
    assert result.exit_code == 0
    assert result.stdout == f"{out}: 3 scenes of 40x40 and train_all.json\n"
    tree = json.loads((out / "train_all.json").read_text())
    assert [(image["width"], image["height"]) for image in tree["images"]] == [(40, 40)] * 3


@pytest.mark.slow
def test_training_learns_from_unlabelled_photos_in_rounds(sample: Path, tmp_path: Path) -> None:
    config, fold = tmp_path / "my.yaml", tmp_path / "fold"
    config.write_text(
        "{epochs: 1, batch_size: 4, data: {image_size: 32, folds: 2}, model: {weights: none}, "
        "pseudo: {name: folder, folder: elsewhere, rounds: 2, threshold: 0.01}}"
    )
    photos = Path(shutil.copytree(sample / "photos", tmp_path / "photos"))
    arguments = ["train", "--config", config, "--data", sample, "--fold", 1, "--out", fold]
    result = CliRunner().invoke(launch.app, list(map(str, [*arguments, "--pseudo", photos])))
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()[:2]) for line in result.stdout.splitlines()[:5]]
    assert lines == ["epoch 1", "round 1,", "epoch 1", "round 2,", "epoch 1"]
    about = json.loads((fold / "pseudo" / "photos.json").read_text())
    assert len(about["photos"]) == len(about["show_training_photos"]) == 10
    kept = load_train_config(fold / "config.yaml").pseudo
    assert (kept.name, kept.folder, kept.rounds) == ("folder", str(photos), 2)


@pytest.mark.slow
def test_training_predicting_and_evaluating_work_without_ray_optuna_and_mlflow(
    sample: Path, tmp_path: Path
) -> None:
    config, out, fold = tmp_path / "my.yaml", tmp_path / "out", tmp_path / "fold"
    config.write_text("epochs: 1\nbatch_size: 4\ndata: {image_size: 32, folds: 2}\n")
    arguments = ["train", "--config", config, "--data", sample, "--fold", 1, "--out", fold]
    imported, stderr = _modules_after(
        [
            [str(argument) for argument in (*arguments, "--set", "model.weights=none")],
            ["predict", "--model", str(fold), "--images", str(sample), "--out", str(out)],
            ["evaluate", "--model", str(fold), "--data", str(sample)],
        ]
    )
    assert "torch" in imported
    assert not imported & {"ray", "optuna", "mlflow"}
    assert "warning: the members were trained on these very photos; the scores below are" in stderr
    assert json.loads((fold / "metrics.json").read_text())["images"] == 10
    assert len(list((out / "masks").rglob("*.png"))) == 20
    csv.field_size_limit(1 << 20)
    with (out / "submission.csv").open() as file:
        assert len(list(csv.reader(file))) == 21
