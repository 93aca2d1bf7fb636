"""An exported network says in onnxruntime what it says in torch, or there is no file."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

import launch
from tests.trashseg.untrained_folds import write_untrained
from trashseg import export
from trashseg.config import ModelConfig
from trashseg.data.coco import load_coco
from trashseg.errors import ExportError
from trashseg.export import Deployed, compare, photos_at_size, run_onnx, run_torch, to_onnx
from trashseg.member import load_member
from trashseg.models import build_model

OF_THE_RECIPES = [  # on small encoders; the fold that is written below has an fpn
    ("deeplabv3plus", "resnet18"),
    ("fcn8s", "vgg11"),
    ("unet", "resnet18"),
]


def deployed(arch: str, encoder: str) -> Deployed:
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"arch": arch, "encoder": encoder, "weights": "none"})
    return Deployed(build_model(config, classes=4, pretrained=False), "trash").eval()


@pytest.fixture(scope="module")
def fold(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "folds" / "trial_000" / "0"
    write_untrained(folder, load_coco(sample), image_size=64)
    return folder


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(launch.app, ["export", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    [line] = result.stderr.splitlines()
    return line.removeprefix("error: ")


# --- what is written ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "encoder"), OF_THE_RECIPES)
def test_every_architecture_of_the_recipes_says_the_same(
    arch: str, encoder: str, tmp_path: Path
) -> None:
    network, photos = deployed(arch, encoder), photos_at_size(None, 64)
    file = tmp_path / "network.onnx"
    to_onnx(network, photos, arch).save(file, external_data=False)
    ours = run_torch(network, photos)
    parity = compare(np.concatenate([ours, ours]), run_onnx(file, photos))
    assert parity.difference < 1e-4
    assert parity.agreement > 0.999


@pytest.mark.slow
def test_a_fold_is_written_with_all_that_a_reader_needs(fold: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "member.onnx"
    result = CliRunner().invoke(launch.app, ["export", "--model", str(fold), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "probabilities differ from torch's by at most" in result.stdout
    assert [file.name for file in out.parent.iterdir()] == ["member.onnx"]
    session = onnxruntime.InferenceSession(out)
    [photos], [probabilities] = session.get_inputs(), session.get_outputs()
    assert (photos.name, photos.type, photos.shape[1:]) == ("photos", "tensor(uint8)", [3, 64, 64])
    assert (probabilities.name, probabilities.shape[1:]) == ("probabilities", [12, 64, 64])
    assert isinstance(photos.shape[0], str)  # any number
    member = load_member(fold, torch.device("cpu"))
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(member.classes)
    assert json.loads(about["category_ids"]) == list(member.category_ids)
    assert json.loads(about["image_size"]) == 64
    assert (about["normalize"], json.loads(about["mean"])) == ("half", [0.5, 0.5, 0.5])
    assert (json.loads(about["fold"]), about["dataset"]) == (0, member.dataset)
    five = np.repeat(photos_at_size(None, 64)[:1], 5, axis=0)
    sums = session.run(None, {"photos": five})[0].sum(axis=1)
    assert sums.shape == (5, 64, 64)
    assert sums == pytest.approx(np.ones_like(sums), abs=1e-5)


# --- what is not -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_file_that_says_something_else_is_not_kept(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold, small = tmp_path / "fold", ModelConfig(arch="fcn8s", encoder="vgg11", weights="none")
    write_untrained(fold, load_coco(sample), model=small)
    monkeypatch.setattr(export, "MAX_DIFFERENCE", -1.0)  # nothing is that close
    out = tmp_path / "new" / "member.onnx"
    message = refused("--model", fold, "--out", out)
    assert message.startswith(f"{fold}: is not exported: its probabilities differ from torch's by")
    assert message.endswith("use it in torch")
    assert list(out.parent.iterdir()) == []


@pytest.mark.slow
def test_a_network_that_cannot_be_exported_is_named_with_the_reason() -> None:
    with pytest.raises(
        ExportError, match=r"my/fold: torch cannot export this network \(Given input"
    ):
        to_onnx(
            deployed("pan", "resnet18"), photos_at_size(None, 64), "my/fold"
        )  # too small for it


def test_a_file_that_exists_is_kept(fold: Path, tmp_path: Path) -> None:
    out = tmp_path / "member.onnx"
    out.write_text("mine")
    message = refused("--model", fold, "--out", out)
    assert message == f"{out}: exists: choose another name or delete it"
    assert out.read_text() == "mine"


def test_an_ensemble_is_refused_and_what_to_export_is_said(tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text("")
    message = refused("--model", tmp_path, "--out", tmp_path / "member.onnx")
    assert message.endswith("export its members one by one, runs/NAME/folds/TRIAL/FOLD")


def test_a_folder_without_a_fold_is_refused(tmp_path: Path) -> None:
    message = refused("--model", tmp_path, "--out", tmp_path / "member.onnx")
    assert message.startswith(f"{tmp_path}: holds no finished fold")


def test_a_missing_package_is_named_with_what_to_install(
    fold: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "NEEDED", ("onnx", "onnx_of_next_year"))
    message = refused("--model", fold, "--out", tmp_path / "member.onnx")
    assert message.startswith("export needs onnx_of_next_year: run pip install 'trashseg[onnx]'")


# --- the comparison ----------------------------------------------------------------------------


def test_a_difference_is_the_largest_and_the_agreement_a_share_of_pixels() -> None:
    """Two classes, four pixels; in the last one the likelier class changes."""
    ours = np.array([[[[0.9, 0.6], [0.2, 0.55]], [[0.1, 0.4], [0.8, 0.45]]]], dtype=np.float32)
    theirs = ours.copy()
    theirs[0, :, 1, 1] = 0.45, 0.55
    parity = compare(ours, theirs)
    assert parity.difference == pytest.approx(0.1)
    assert parity.agreement == 0.75
    assert not parity.holds
    assert compare(ours, ours).holds


def test_nan_never_holds_and_another_shape_is_refused() -> None:
    ours = np.full((1, 2, 2, 2), 0.5, dtype=np.float32)
    assert not compare(ours, np.full_like(ours, np.nan)).holds
    with pytest.raises(ExportError, match="in ONNX"):
        compare(ours, ours[:, :1])
