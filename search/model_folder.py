"""An ensemble as the folder that MLflow calls a model: all that it takes to run it elsewhere.

FOLDER/MLmodel, requirements.txt, conda.yaml, python_env.yaml, input_example.json   MLflow's own
FOLDER/pyfunc_model.py       what is run: search/pyfunc_model.py
FOLDER/code/trashseg/        the code that it runs, as it is now
FOLDER/artifacts/run/        of runs/NAME the ensemble and its members; trashseg/ensemble.py loads them
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import mlflow.pyfunc
import pandas as pd  # type: ignore[import-untyped]
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Map

import trashseg
from search.run_folder import RunFolder
from trashseg.data.sample import sample_photo
from trashseg.manifest import FILE, Manifest, read_manifest
from trashseg.member import BEST

CODE = Path(trashseg.__file__).parent
WRAPPER = Path(__file__).with_name("pyfunc_model.py")
OF_THE_ENSEMBLE = (FILE, "metrics.json", "post.json", "model_card.md")
OF_A_MEMBER = ("config.yaml", "metrics.json")  # beside its weights
NEEDED = (
    "albumentations",
    "filelock",
    "huggingface_hub",
    "llvmlite",
    "mlflow",
    "numba",
    "numpy",
    "opencv-python-headless",
    "pandas",
    "pycocotools",
    "pydantic",
    "pyyaml",
    "safetensors",
    "segmentation-models-pytorch",
    "timm",
    "torch",
    "torchvision",
)
"""Packages that trashseg imports when it predicts, and those that must have just their versions."""
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary, "photo")]),
    outputs=Schema([ColSpec(DataType.binary, "mask"), ColSpec(Map(DataType.double), "shares")]),
)


def write_model(run: RunFolder, folder: Path, model: Model, about: dict[str, object]) -> None:
    """Fill the new `folder` with the run's ensemble; `about` goes into its metadata, beside the classes.

    Weights are linked, not copied, where the disk can: `folder` should be on that of the run.
    """
    manifest = read_manifest(run.ensemble)
    with scratch(folder.with_name(f"{folder.name}.files")) as files:
        part = files / "run"
        for file in small_files(run, manifest):
            target = part / file.relative_to(run.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(WRAPPER),
            artifacts={"run": str(part)},
            code_paths=[str(CODE)],
            signature=SIGNATURE,
            input_example=pd.DataFrame({"photo": [sample_photo(0)]}),
            pip_requirements=requirements(manifest),
            metadata={"classes": list(manifest.classes), **about},
            mlflow_model=model,
        )
    for weights in weight_files(run, manifest):
        link_or_copy(weights, folder / "artifacts" / "run" / weights.relative_to(run.path))
    model.model_size_bytes = size_of(folder)
    model.save(str(folder / "MLmodel"))


def small_files(run: RunFolder, manifest: Manifest) -> Iterator[Path]:
    """All of the run that belongs to the model, but for the weights."""
    yield from (run.ensemble / name for name in OF_THE_ENSEMBLE)
    for folder in member_folders(run, manifest):
        yield from (folder / name for name in OF_A_MEMBER)


def weight_files(run: RunFolder, manifest: Manifest) -> Iterator[Path]:
    return (folder / BEST for folder in member_folders(run, manifest))


def member_folders(run: RunFolder, manifest: Manifest) -> Iterator[Path]:
    """Under the run's own."""
    for member in manifest.members:
        yield Path(os.path.normpath(run.ensemble / member.folder))


def requirements(manifest: Manifest) -> list[str]:
    """What is installed here of what the model needs, for pip: a torch for one kind of GPU counts as any
    of its version."""
    with_crf = manifest.chosen == "soft_vote_crf"
    original = with_crf and manifest.crf.backend == "pydensecrf"
    names = [*NEEDED, *(["pydensecrf2"] if original else [])]
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


def content_key(run: RunFolder) -> str:
    """16 hex digits of what the model is: its choices and scores, which no other weights have to the
    last digit, its code and its requirements. The same ensemble is not registered twice."""
    digest = hashlib.blake2b(digest_size=8)
    manifest = read_manifest(run.ensemble)
    scores = (run.ensemble / FILE, run.ensemble / "metrics.json")
    for file in (*scores, WRAPPER, *sorted(CODE.rglob("*.py"))):
        digest.update(hashlib.blake2b(file.read_bytes()).digest())
    digest.update("\n".join(requirements(manifest)).encode())
    return digest.hexdigest()


def link_or_copy(file: Path, target: Path) -> None:
    """One file under two names; a copy where the disk knows no such thing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(file)
    except OSError:  # another disk, or one without hard links
        shutil.copy(file, target)


def size_of(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """An empty folder that is gone after the block; what a kill has left of it goes before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
