"""The peak memory of an ensemble at work: prints bytes, of each way in a process of its own.

    python -m bench.peak_memory ROOT held|resident WAY:PHOTOS ...

WAY is predict or by_hand; ROOT/ensemble is an ensemble, ROOT/photos/photos holds so many photos or more.
The processes are forked from one that has imported all and done nothing: only work tells them apart.

resident    as the product runs: what is freed stays with the process, to be allocated again, in pieces
            which differ from process to process
held        what is freed goes back to the system at once, which takes twice as long: the memory that the
            work itself needs
"""

import ctypes
import json
import multiprocessing
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from bench.resident import resident
from trashseg.data.coco import read_photo
from trashseg.device import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, Resources
from trashseg.ensemble import load_ensemble
from trashseg.member import probabilities
from trashseg.predict import predict

RESOURCES = Resources(cpus=2, device=torch.device("cpu"))
SMALL = 2**17  # bytes: glibc's own threshold, before it adapts it


def main(root: Path, memory: str, asked: Sequence[str]) -> None:
    peaks = []
    for one in asked:
        way, photos = one.split(":")
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as alone:
            peaks.append(alone.submit(peak, way, root, int(photos), memory).result())
    print(json.dumps(peaks), flush=True)


def peak(way: str, root: Path, photos: int, memory: str) -> int:
    """Bytes over what this process held before."""
    RESOURCES.claim()
    if memory == "held":
        return_at_once()
    with tempfile.TemporaryDirectory() as folder:
        chosen, out = Path(folder) / "chosen", Path(folder) / "out"
        chosen.mkdir()
        for photo in sorted((root / "photos" / "photos").iterdir())[:photos]:
            shutil.copy(photo, chosen)
        before = resident("VmRSS")
        WAYS[way](root / "ensemble", chosen, out)
    return resident("VmHWM") - before


def return_at_once() -> None:
    libc = ctypes.CDLL(None)
    for threshold in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
        if not libc.mallopt(threshold, SMALL):
            raise OSError("glibc's mallopt refuses a threshold")


def with_predict(ensemble: Path, photos: Path, out: Path) -> None:
    predict(load_ensemble(ensemble, RESOURCES), photos, out)


def by_hand(ensemble: Path, photos: Path, out: Path) -> None:
    """All networks loaded, each asked once about all photos, and the mean of what they say."""
    members = load_ensemble(ensemble, RESOURCES).members
    images = [read_photo(path) for path in sorted(photos.iterdir())]
    softmax = [probabilities(member, images, RESOURCES.device) for member in members]
    torch.stack(softmax).mean(0)


WAYS: dict[str, Callable[[Path, Path, Path], None]] = {"predict": with_predict, "by_hand": by_hand}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
