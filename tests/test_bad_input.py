"""Every mistake of a user: exit code 2, one line that says what, where and what to do, no traces."""

import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import launch

Tree = dict[str, Any]


@pytest.fixture
def data(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the sample to spoil; commands run in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRASHSEG_CACHE", str(tmp_path / "cache"))
    yield Path(shutil.copytree(sample, tmp_path / "data"))
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()  # what a test started; nothing where none did


def _files() -> set[str]:
    """Everything in the working folder but the cache, which may keep what it knows."""
    return {str(path) for path in Path().rglob("*") if path.parts[0] != "cache"}


def _refused(*arguments: object) -> str:
    """Run launch.py with arguments that must be refused; the line on stderr, without `error: `."""
    before = _files()
    result = CliRunner().invoke(launch.app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, (result.output, result.exception)
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert result.stdout == ""
    assert _files() == before
    built = [path.name for path in Path("cache").glob("*/") if path.name != "keys"]
    assert not [name for name in built if name.endswith(".partial")]
    return lines[0].removeprefix("error: ")


def _search(*arguments: object, data: object = "data") -> str:
    settings = ("--set", "model.weights=none", "--set", "data.image_size=64")
    return _refused("search", "--data", data, "--trials", 2, *settings, *arguments)


# --- photos and their json ---------------------------------------------------------------------


def _edit(change: Callable[[Tree], object]) -> Callable[[Path], object]:
    def edit(data: Path) -> None:
        file = data / "train_all.json"
        tree = json.loads(file.read_text())
        change(tree)
        file.write_text(json.dumps(tree))

    return edit


def _write(name: str, text: str) -> Callable[[Path], object]:
    return lambda data: (data / name).write_text(text)


def _photo_of_another_size(data: Path) -> None:
    picture = cv2.imencode(".jpg", np.zeros((50, 64, 3), np.uint8))[1]
    (data / "photos/000002.jpg").write_bytes(picture.tobytes())


def _keep_three(tree: Tree) -> None:
    tree["images"] = tree["images"][:3]
    tree["annotations"] = [a for a in tree["annotations"] if a["image_id"] < 3]


def _rename_photo_7_to_6_png(folder: Path) -> None:
    (folder / "photos/000007.jpg").rename(folder / "photos/000006.png")
    _edit(lambda tree: tree["images"][7].update(file_name="photos/000006.png"))(folder)


def _give_photo_7_the_id_6(tree: Tree) -> None:
    tree["images"][7]["id"] = 6
    for annotation in tree["annotations"]:
        annotation["image_id"] -= annotation["image_id"] == 7


BAD_DATA: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "data: no such folder: check --data"),
    "no json": (
        lambda data: (data / "train_all.json").unlink(),
        "data: has neither train_all.json nor train.json and val.json: add one",
    ),
    "not COCO": (
        _write("train_all.json", '{"a": 1}'),
        "train_all.json: is not COCO: it has no list 'images': export it as COCO",
    ),
    "a list": (
        _write("train_all.json", "[1, 2]"),
        "train_all.json: is not COCO: it has no list 'images': export it as COCO",
    ),
    "broken json": (
        _write("train_all.json", '{"images": ['),
        "train_all.json: cannot be read as json (Expecting value: line 1 column 13 (char 12)): "
        "export it again",
    ),
    "a photo is missing": (
        lambda data: (data / "photos/000003.jpg").unlink(),
        "data: photo photos/000003.jpg of train_all.json is missing: add it or drop its entry",
    ),
    "all photos are missing": (
        lambda data: shutil.rmtree(data / "photos"),
        "data: photo photos/000000.jpg and 19 more of train_all.json is missing: add it or drop",
    ),
    "a photo is text": (
        _write("photos/000019.jpg", "this is no photo"),
        "photos/000019.jpg: is not a readable photo: replace it",
    ),
    "a photo is empty": (
        _write("photos/000001.jpg", ""),
        "photos/000001.jpg: is not a readable photo: replace it",
    ),
    "another size": (
        _photo_of_another_size,
        "photos/000002.jpg: is 64x50, its json entry says 64x64: mend the entry or the photo",
    ),
    "unknown image": (
        _edit(lambda tree: tree["annotations"][4].update(image_id=99)),
        "train_all.json: annotation 4 is for unknown image 99: remove it",
    ),
    "unknown category": (
        _edit(lambda tree: tree["annotations"][5].update(category_id=11)),
        "train_all.json: annotation 5 is of unknown category 11: add or mend it",
    ),
    "no images": (
        _edit(lambda tree: tree.update(images=[], annotations=[])),
        "train_all.json: lists no images: add photos",
    ),
    "no annotations": (
        _edit(lambda tree: tree.update(annotations=[])),
        "train_all.json: has no annotations: nothing to learn from",
    ),
    "fewer photos than folds": (
        _edit(_keep_three),
        "data: has 3 photos, fewer than 5 folds: add photos or lower data.folds",
    ),
    "an image id twice": (
        _edit(_give_photo_7_the_id_6),
        "train_all.json: photo photos/000007.jpg (id 6) is listed twice: keep one entry",
    ),
    "a photo twice": (
        _edit(lambda tree: tree["images"][7].update(file_name="photos/000006.jpg")),
        "train_all.json: photo photos/000006.jpg (id 7) is listed twice: keep one entry",
    ),
    "two photos with one mask": (
        _rename_photo_7_to_6_png,
        "train_all.json: photo photos/000006.png differs from another only in its suffix, their "
        "masks would have one name: rename it",
    ),
    "an id is text": (
        _edit(lambda tree: tree["images"][1].update(id="one")),
        "train_all.json: is not COCO: images[1].id is 'one', not a number: mend it",
    ),
    "a polygon of two corners": (
        _edit(lambda tree: tree["annotations"][0].update(segmentation=[[1, 1, 5, 5]])),
        "photos/000000.jpg: annotation 0 cannot be drawn (a polygon needs at least three x, y pairs)"
        ": mend or remove it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_refused_before_a_search(data: Path, case: str) -> None:
    spoil, message = BAD_DATA[case]
    spoil(data)
    assert message in _search()


@pytest.mark.parametrize("case", ["no folder", "no json", "a photo is text", "another size"])
def test_bad_data_is_refused_before_a_single_training(data: Path, case: str) -> None:
    spoil, message = BAD_DATA[case]
    spoil(data)
    Path("my.yaml").write_text("{model: {weights: none}, data: {image_size: 64}}")
    arguments = ("train", "--config", "my.yaml", "--data", "data", "--fold", 0, "--out", "out")
    assert message in _refused(*arguments)


# --- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lss.name=focal", "command line: lss: unknown key, did you mean 'loss'?"),
        ("optim.decoder_rl=1e-3", "optim.decoder_rl: unknown key, did you mean 'decoder_lr'?"),
        ("search.trails=3", "search.trails: unknown key, did you mean 'trials'?"),
        ("loss.name=focall", "loss.name: unknown value 'focall', did you mean 'focal'?"),
        ("model.arch=unt", "model.arch: unknown value 'unt', did you mean 'unet'?"),
        ("metric=iou", "metric: unknown value 'iou', did you mean 'miou'?"),
        ("data.image_size=100", "data.image_size: 100 is not a multiple of 32; the nearest is 96"),
        ("epochs=many", "epochs: input should be a valid integer"),
        ("epochs", "--set epochs: has no '=': write --set section.key=value"),
        ("search.grace_period=3", "search.grace_period (3) is longer than a trial (epochs: 2); lower"),
        ("search.folds=[5]", "search.folds (5) does not exist: there are folds 0 to 4"),
        ("search.name=a/b", "search.name: use letters, digits, '.', '_' and '-' only, got 'a/b'"),
        ("loss.gamma=2", "loss.gamma: unknown key"),
        ("optim.decoder_lr=0.5", "optim.decoder_lr: the configuration's 0.5 lies outside the space"),
        ("data.folds_file=no.json", "no.json: no such file: check data.folds_file"),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_work_is_named_with_the_nearest(
    data: Path, setting: str, message: str
) -> None:
    assert message in _search("--epochs", 2, "--set", "search.grace_period=1", "--set", setting)


def test_all_problems_of_a_configuration_file_come_in_one_line(data: Path) -> None:
    Path("my.yaml").write_text("epoch: 3\nloss: {name: dise}\nsearch: {trial: 4}\n")
    message = _search("--config", "my.yaml")
    assert message.startswith("my.yaml: ")
    for problem in (
        "epoch: unknown key, did you mean 'epochs'?",
        "loss.name: unknown value 'dise', did you mean 'dice'?",
        "search.trial: unknown key, did you mean 'trials'?",
    ):
        assert problem in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "my.yaml: no such file: check the path"),
        ("a: [1", "my.yaml: is not YAML"),
        ("- 1", "my.yaml: holds a list, not keys and values: mend it"),
    ],
)
def test_a_configuration_file_that_cannot_be_read_is_named(
    data: Path, text: str | None, message: str
) -> None:
    if text is not None:
        Path("my.yaml").write_text(text)
    assert _search("--config", "my.yaml").startswith(message)


# --- the space ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("los.name: {choice: [focal]}", "los.name: unknown key, did you mean 'loss.name'?"),
        ("loss.name: {chioce: [focal]}", "loss.name.chioce: unknown key, did you mean 'choice'?"),
        ("clip_norm: {float: [2, 1]}", "clip_norm: its range [2, 1] is empty: the first must be the"),
        (
            "loss.name: {choice: [cross_entropy, focall]}",
            "loss.name: unknown value 'focall', did you mean 'focal'?",
        ),
        (
            "loss.name: {choice: [cross_entropy, focal]}\n"
            "loss.gamma: {float: [-1, 3], when: {loss.name: [focal]}}",
            "loss.gamma: input should be greater than or equal to 0, got -1.0",
        ),
        ("{}", "space.yaml: has no parameters: add one"),
    ],
)  # fmt: skip
def test_a_space_file_with_a_mistake_is_refused(data: Path, text: str, message: str) -> None:
    Path("space.yaml").write_text(text)
    assert message in _search("--space", "space.yaml")


def test_an_unknown_space_is_refused_with_the_nearest(data: Path) -> None:
    message = _search("--space", "aug_los")
    assert message == "--space aug_los: unknown value, did you mean 'aug_loss'?"


# --- runs, models and machines -----------------------------------------------------------------


def test_a_run_that_exists_is_not_searched_again(data: Path) -> None:
    Path("runs/night").mkdir(parents=True)
    Path("runs/night/search.yaml").write_text("{}")
    message = _search("--name", "night")
    assert message.endswith(
        "runs/night: a run of this name exists: add --resume to go on with it, choose another "
        "--name, or delete it"
    )


@pytest.mark.parametrize("command", ["retrain", "ensemble"])
def test_a_run_that_does_not_exist_is_named_with_the_nearest(data: Path, command: str) -> None:
    message = _refused(command, "--name", "nigth")
    assert message.endswith("runs has no runs, start with launch.py search")
    Path("runs/night").mkdir(parents=True)
    Path("runs/night/search.yaml").write_text("{}")
    message = _refused(command, "--name", "nigth")
    assert message == "--name nigth: no such run in runs, did you mean 'night'?"


def test_a_test_folder_that_is_not_there_is_refused(data: Path) -> None:
    Path("runs/night").mkdir(parents=True)
    Path("runs/night/search.yaml").write_text(f"search: {{data_dir: '{data}'}}")
    message = _refused("ensemble", "--name", "night", "--test", "none")
    assert message.startswith("none: no such folder: check --")


@pytest.mark.parametrize(
    ("command", "option"), [("predict", ("--images", "data", "--out", "out")),
                            ("evaluate", ("--data", "data"))],
)  # fmt: skip
def test_a_folder_without_a_model_is_refused(
    data: Path, command: str, option: tuple[str, ...]
) -> None:
    message = _refused(command, "--model", "data", *option)
    assert message.startswith("data: holds neither an ensemble nor a fold: give runs/NAME/ensemble")


def test_a_fold_that_does_not_exist_is_refused_and_no_folder_is_left(data: Path) -> None:
    Path("my.yaml").write_text("{model: {weights: none}, data: {image_size: 64}}")
    arguments = ("train", "--config", "my.yaml", "--data", "data", "--fold", 5, "--out", "out")
    assert _refused(*arguments) == "fold 5: there are folds 0 to 4: choose one of them"


def test_weights_that_are_not_there_are_refused(data: Path) -> None:
    assert "none.safetensors" in _search("--set", "model.weights=none.safetensors")


def test_a_sample_is_not_written_over_something(data: Path) -> None:
    message = _refused("data", "sample", "data")
    assert message == "data: exists and is not empty: choose another folder or delete it"


def test_a_batch_larger_than_the_training_photos_is_refused_before_a_search(data: Path) -> None:
    # 20 photos in 5 folds leave 16 to train on
    message = _search("--set", "batch_size=17")
    assert message.startswith("batch_size: 17 is more than the 16 training photos of fold 0")


def test_an_unknown_class_to_paste_is_refused_before_a_search(data: Path) -> None:
    message = _search("--set", "augment.copy_paste.classes=Pape")
    assert message.startswith("augment.copy_paste.classes: unknown class 'Pape', did you mean 'Pap")


def test_unlabelled_photos_that_are_not_there_are_refused(data: Path) -> None:
    Path("my.yaml").write_text("{model: {weights: none}, data: {image_size: 64}}")
    arguments = ("train", "--config", "my.yaml", "--data", "data", "--fold", 0, "--out", "out")
    message = f"{Path('none').resolve()}: no such folder: check pseudo.folder"
    assert _refused(*arguments, "--pseudo", "none") == message
    pseudo = ("--set", "pseudo.name=folder", "--set", "pseudo.folder=none")
    assert _search(*pseudo) == message


def test_pseudo_labels_of_no_folder_are_refused(data: Path) -> None:
    message = _search("--set", "pseudo.name=folder")
    assert message.startswith("command line: pseudo.folder: field required")


@pytest.mark.slow
def test_more_cpus_than_any_machine_has_are_refused(data: Path) -> None:
    message = _search("--set", "search.cpus_per_trial=4096")
    assert message.startswith("search.cpus_per_trial=4096, search.gpus_per_trial=")
    assert "no node has that many; the largest has" in message
    assert message.endswith("ask for less")


@pytest.mark.timeout(120)
def test_a_cluster_that_is_not_there_is_refused(data: Path) -> None:
    # Port 1 refuses at once. Ray's own twenty attempts would take eight minutes.
    message = _search("--address", "127.0.0.1:1")
    assert message.startswith("--address 127.0.0.1:1: no Ray cluster there")


# --- the demo ----------------------------------------------------------------------------------


def test_a_demo_of_no_model_is_refused(data: Path) -> None:
    message = _refused("demo", "--model", "runs/none/ensemble", "--port", 0)
    assert message.startswith(
        "runs/none/ensemble: holds neither an ensemble nor a fold: give runs/"
    )


def test_a_demo_on_a_port_that_is_taken_is_refused(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = _refused("demo", "--model", "runs/none/ensemble", "--port", port)
    what = f"--host 127.0.0.1 --port {port}: cannot listen there"
    assert message == f"{what} (Address already in use): choose others"


def test_a_demo_at_an_address_of_another_machine_is_refused(data: Path) -> None:
    message = _refused("demo", "--model", "runs/none/ensemble", "--host", "192.0.2.1", "--port", 0)
    assert message.startswith("--host 192.0.2.1 --port 0: cannot listen there")


def test_a_demo_with_samples_that_are_not_there_is_refused(data: Path) -> None:
    message = _refused("demo", "--model", "none", "--port", 0, "--samples", "none")
    assert message == "none: no such folder: check --samples"


def test_a_demo_without_gradio_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trashseg.demo.server.find_spec", lambda name: None)
    message = _refused("demo", "--model", "none")
    assert message == "launch.py demo: gradio is not installed: run pip install 'trashseg[demo]'"
