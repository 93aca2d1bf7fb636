"""A trained fold as an ONNX file, written only where it says in onnxruntime what it says in torch.

In:   photos         (N, 3, S, S) uint8 RGB, any N: photos resized to the square of S pixels that the
                     network was trained on, by area averaging (cv2.INTER_AREA) as trashseg does it
Out:  probabilities  (N, C, S, S) float32: softmax over the classes

Normalisation is in the graph. The file's metadata has all that a reader needs: classes, category ids, S,
the normalisation, fold, and the key of the photos that it learnt from. An ensemble's other members, its
views and its CRF are not in it.
"""

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trashseg.augment import MEAN_AND_STD, scale_and_shift
from trashseg.data.cache import resize_photo
from trashseg.data.coco import decode_bytes, read_photo
from trashseg.data.sample import sample_photo
from trashseg.data.unlabelled import find_photos
from trashseg.errors import CheckpointError, ExportError
from trashseg.manifest import FILE
from trashseg.member import Member, load_member

NEEDED = ("onnx", "onnxscript", "onnxruntime")
PHOTOS = 3  # that the file is proven on, together and one by one
MAX_DIFFERENCE = 1e-3  # of a probability; float32 in another order gives 1e-6 to 1e-4
MIN_AGREEMENT = 0.999  # of the pixels: where two classes are equally likely, either may come first


class Deployed(nn.Module):
    """A network with what comes before and after it."""

    def __init__(self, network: nn.Module, kind: str) -> None:
        super().__init__()
        self.network, self.kind = network, kind

    def forward(self, photos: Tensor) -> Tensor:
        scale, shift = scale_and_shift(self.kind, photos.device)
        logits: Tensor = self.network(photos * scale - shift)
        return logits.softmax(dim=1)


@dataclass(frozen=True)
class Parity:
    """How far two tables of probabilities (N, C, S, S) of the same photos are apart."""

    difference: float
    """The largest, of any probability."""
    agreement: float
    """Share of the pixels whose likeliest class is the same."""

    @property
    def holds(self) -> bool:
        return self.difference <= MAX_DIFFERENCE and self.agreement >= MIN_AGREEMENT

    def describe(self) -> str:
        return (
            f"its probabilities differ from torch's by at most {self.difference:.1e}, and "
            f"{self.agreement:.2%} of the pixels have the same class ({PHOTOS} photos, together and "
            "one by one)"
        )


@dataclass(frozen=True)
class Exported:
    """What was written."""

    bytes: int
    parity: Parity

    def describe(self) -> str:
        return f"{self.bytes / 1e6:.1f} MB; {self.parity.describe()}"


def export_member(folder: Path, out: Path, images: Path | None = None) -> Exported:
    """Write the fold in `folder` to `out`, compared with torch on photos of `images` or built-in ones.

    Raises ExportError where a package is missing, `out` exists, the network cannot be exported, or the
    file says something else than the network; then there is no file.
    """
    require_onnx()
    if (folder / FILE).is_file():
        raise CheckpointError(
            f"{folder}: is an ensemble: export its members one by one, runs/NAME/folds/TRIAL/FOLD"
        )
    if out.exists():
        raise ExportError(f"{out}: exists: choose another name or delete it")
    member = load_member(folder, torch.device("cpu"))
    photos = photos_at_size(images, member.config.data.image_size)
    network = Deployed(member.model, member.config.data.normalize).eval()
    program = to_onnx(network, photos, name=str(folder))
    program.model.metadata_props.update(describe(member))
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    try:
        program.save(partial, external_data=False)
        ours = run_torch(network, photos)
        parity = compare(np.concatenate([ours, ours]), run_onnx(partial, photos))
        if not parity.holds:
            raise ExportError(f"{folder}: is not exported: {parity.describe()}: use it in torch")
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return Exported(out.stat().st_size, parity)


def require_onnx() -> None:
    """ExportError where the extra is not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"export needs {', '.join(missing)}: run pip install 'trashseg[onnx]', or pip install "
            f"{' '.join(missing)}"
        )


def photos_at_size(folder: Path | None, size: int) -> NDArray[np.uint8]:
    """(PHOTOS, 3, size, size): the first photos in `folder`, again where there are fewer."""
    if folder is None:
        encoded = (np.frombuffer(sample_photo(n), np.uint8) for n in range(PHOTOS))
        images = [decode_bytes(content, "the built-in photo") for content in encoded]
    else:
        images = [read_photo(photo.path) for photo in find_photos(folder)[:PHOTOS]]
    squares = [resize_photo(image, size).transpose(2, 0, 1) for image in images]
    return np.stack([squares[place % len(squares)] for place in range(PHOTOS)])


def to_onnx(network: nn.Module, photos: NDArray[np.uint8], name: str) -> Any:
    """torch's ONNXProgram of `network`, for any number of photos; ExportError, which calls it `name`."""
    batch = torch.export.Dim("photos")
    try:
        with silence():
            return torch.onnx.export(
                network,
                (torch.from_numpy(photos[:2]),),  # one alone would be taken for a constant
                input_names=["photos"],
                output_names=["probabilities"],
                dynamic_shapes={"photos": {0: batch}},
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        cause = " ".join(str(error.__cause__ or error).split())[:200]
        raise ExportError(
            f"{name}: torch cannot export this network ({cause}): use it in torch"
        ) from error


@contextmanager
def silence() -> Iterator[None]:
    """No warnings of the exporter's own parts; what goes wrong it logs too, and raises."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def describe(member: Member) -> dict[str, str]:
    """The file's metadata; lists and numbers are JSON."""
    config = member.config.data
    mean, deviation = MEAN_AND_STD[config.normalize]
    return {
        "classes": json.dumps(member.classes),
        "category_ids": json.dumps(member.category_ids),
        "image_size": json.dumps(config.image_size),
        "input": "photos: uint8 RGB (N, 3, S, S), resized to S by area averaging; S is image_size",
        "output": "probabilities: float32 (N, C, S, S), softmax over classes",
        "normalize": config.normalize,
        "mean": json.dumps(mean),
        "std": json.dumps(deviation),
        "normalize_note": "in the graph: (photo / 255 - mean) / std by channel",
        "architecture": f"{member.config.model.arch} on {member.config.model.encoder}",
        "fold": json.dumps(member.fold),
        "dataset": member.dataset,
    }


# --- the proof ---------------------------------------------------------------------------------


@torch.inference_mode()
def run_torch(network: nn.Module, photos: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(network(torch.from_numpy(photos)).numpy())


def run_onnx(file: Path, photos: NDArray[np.uint8]) -> NDArray[np.float32]:
    """All photos at once, then one by one: (2 N, C, S, S)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return np.concatenate([ask(session, photos), *(ask(session, photo[None]) for photo in photos)])


def ask(session: Any, photos: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(session.run(["probabilities"], {"photos": photos})[0])


def compare(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> Parity:
    """ExportError where they have not even one shape. No parity holds where there is a NaN."""
    if ours.shape != theirs.shape:
        raise ExportError(f"probabilities are {theirs.shape} in ONNX, {ours.shape} in torch")
    difference = float(np.abs(ours - theirs).max())
    same = ours.argmax(axis=1) == theirs.argmax(axis=1)
    return Parity(difference, float(same.mean()))
