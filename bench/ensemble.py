"""An ensemble at work: the memory of `predict`, whatever the number of photos, and what views cost."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.allocated import Allocated
from bench.comparison import Bar, Comparison, UnequalResultsError
from trashseg.augment import normalize
from trashseg.checkpoint import write_weights
from trashseg.choice import Choice
from trashseg.config import CrfConfig, DataConfig, ModelConfig, TrainConfig, TtaConfig
from trashseg.config_file import write_yaml
from trashseg.data.coco import read_photo
from trashseg.data.sample import write_sample
from trashseg.device import Resources
from trashseg.ensemble import PHOTOS_AT_A_TIME, Ensemble, load_ensemble, vote
from trashseg.files import write_json
from trashseg.manifest import write_manifest
from trashseg.member import BEST
from trashseg.models import build_model

CLASSES = ("background", *(f"class {index}" for index in range(1, 12)))
SIZE = 256
MEMBERS = 3
FEW, MANY = PHOTOS_AT_A_TIME, 16  # photos
PROCESSES = 3  # of each way, in turn, where they differ
VIEWS = TtaConfig(
    views=(
        "identity", "horizontal_flip", "vertical_flip", "rotate_90", "rotate_180", "rotate_270"
    )
)  # fmt: skip
CPU = Resources(cpus=2, device=torch.device("cpu"))
MEGABYTE = 2**20
Turn = Callable[[Tensor], Tensor]


def run() -> list[Comparison]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_ensemble(root / "ensemble", TtaConfig(views=("identity", "horizontal_flip")))
        write_sample(root / "photos", images=MANY, size=2 * SIZE, seed=0)
        return [*memory(root), views()]


# --- memory ------------------------------------------------------------------------------------


def memory(root: Path) -> list[Comparison]:
    """Peaks of processes, over what they hold when all is imported."""
    by_hand, few, many = peaks(root, "held", f"by_hand:{FEW}", f"predict:{FEW}", f"predict:{MANY}")
    both = f"by_hand:{FEW}", f"predict:{MANY}"
    kept = np.reshape(peaks(root, "resident", *(PROCESSES * both)), (PROCESSES, len(both)))
    peer, ours = np.median(kept, axis=0).tolist()
    setting = (
        f"{MEMBERS} FPN on efficientnet-lite0, {SIZE} px, {len(CLASSES)} classes, 2 views; of the "
        "process with the networks, at its peak, without what the imports take"
    )
    hand = (
        f"by hand: the networks loaded, each asked once about {FEW} photos, their softmax averaged"
    )
    return [
        Comparison(
            name=f"ensemble: memory of predict, {MANY} photos against {FEW}",
            unit="MiB",
            bar=Bar("<=", 1.1),
            ours=many,
            peer=few,
            note=setting,
        ),
        Comparison(
            name="ensemble: memory of predict, against the networks and one batch",
            unit="MiB",
            bar=Bar("<=", 1.2),
            ours=many,
            peer=by_hand,
            note=hand,
        ),
        Comparison(
            name="ensemble: the same, with what the process keeps of what was freed",
            unit="MiB",
            bar=Bar("<=", 1.2),
            ours=ours,
            peer=peer,
            note=f"as both run; the median of {PROCESSES} processes, which differ by 10%",
        ),
    ]


def peaks(root: Path, memory: str, *ways: str) -> list[float]:
    """MiB, as `bench/peak_memory.py` has them."""
    command = [sys.executable, "-m", "bench.peak_memory", str(root), memory, *ways]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [int(peak) / MEGABYTE for peak in json.loads(done.stdout.splitlines()[-1])]


def write_ensemble(folder: Path, tta: TtaConfig) -> None:
    """Of networks with random decoders, as `build_ensemble` leaves it for `predict`."""
    config = TrainConfig(data=DataConfig(image_size=SIZE), model=ModelConfig())
    members = [folder.parent / "folds" / str(fold) for fold in range(MEMBERS)]
    for fold, member in enumerate(members):
        member.mkdir(parents=True)
        torch.manual_seed(fold)
        about = {"classes": CLASSES, "category_ids": list(range(1, len(CLASSES)))}
        texts = {key: json.dumps(value) for key, value in about.items()}
        model = build_model(config.model, len(CLASSES))
        write_weights(member / BEST, model.state_dict(), **texts, fold=str(fold), dataset="")
        write_yaml(member / "config.yaml", config.model_dump(mode="json"))
        write_json(member / "metrics.json", {})
    choice = Choice((1.0,), tta, CrfConfig())
    weights = dict.fromkeys(members, 1 / MEMBERS)
    folder.mkdir()
    write_manifest(folder, folder, weights, CLASSES, choice, "soft_vote")


# --- views -------------------------------------------------------------------------------------


def views() -> Comparison:
    """Bytes that tensors and arrays take beside what the network itself takes."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_ensemble(root / "ensemble", VIEWS)
        write_sample(root / "photos", images=PHOTOS_AT_A_TIME, size=SIZE, seed=0)
        photos = [read_photo(path) for path in sorted((root / "photos").rglob("*.jpg"))]
        loaded = load_ensemble(root / "ensemble", CPU)
    ensemble = Ensemble(loaded.members[:1], (1.0,), VIEWS, False, None, CPU)
    network = ensemble.members[0].model
    with Allocated(network) as streamed:
        ours = vote(ensemble, photos)
    with Allocated(network) as stacked:
        theirs = stack_views(ensemble, photos)
    if not np.allclose(ours, theirs, rtol=0, atol=1e-3):  # 16 bits: 5e-4 near 1
        raise UnequalResultsError("ensemble: views that are stacked give another vote")
    return Comparison(
        name=f"ensemble: memory of {len(VIEWS.views)} views, against stacking them",
        unit="MiB",
        bar=Bar("<=", 0.5),
        ours=streamed.peak / MEGABYTE,
        peer=stacked.peak / MEGABYTE,
        note=f"most that is held at once beside the network, {PHOTOS_AT_A_TIME} photos of {SIZE} px; "
        f"allocated in all: {streamed.total / MEGABYTE:.0f} against {stacked.total / MEGABYTE:.0f}; "
        "votes equal to 16 bits",
    )


@torch.inference_mode()
def stack_views(ensemble: Ensemble, photos: Sequence[NDArray[np.uint8]]) -> NDArray[np.float16]:
    """What is usually done: a copy of the photos for each view, its softmax turned back, all stacked."""
    member = ensemble.members[0]
    batch = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).contiguous()
    images = normalize(batch, member.config.data.normalize)
    seen = [undo(member.model(apply(images)).softmax(1)) for apply, undo in COPYING]
    return np.asarray(torch.stack(seen).mean(0).half().numpy())


COPYING: list[tuple[Turn, Turn]] = [  # the views, and what undoes them
    (lambda x: x, lambda x: x),
    (lambda x: x.flip(-1), lambda x: x.flip(-1)),
    (lambda x: x.flip(-2), lambda x: x.flip(-2)),
    (lambda x: x.rot90(1, (-2, -1)), lambda x: x.rot90(-1, (-2, -1))),
    (lambda x: x.flip(-2, -1), lambda x: x.flip(-2, -1)),
    (lambda x: x.rot90(-1, (-2, -1)), lambda x: x.rot90(1, (-2, -1))),
]
