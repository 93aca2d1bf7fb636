"""The peak memory of an ensemble at work, to be asked for in a process of its own: prints bytes.

    python -m bench.peak_memory predict|by_hand ROOT PHOTOS

ROOT/ensemble is an ensemble, ROOT/photos/photos holds at least so many photos.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from trashseg.data.coco import read_photo
from trashseg.device import Resources
from trashseg.ensemble import load_ensemble
from trashseg.member import probabilities
from trashseg.predict import predict

RESOURCES = Resources(cpus=2, device=torch.device("cpu"))


def main(way: str, root: Path, photos: int) -> None:
    RESOURCES.claim()
    with tempfile.TemporaryDirectory() as folder:
        chosen, out = Path(folder) / "chosen", Path(folder) / "out"
        chosen.mkdir()
        for photo in sorted((root / "photos" / "photos").iterdir())[:photos]:
            shutil.copy(photo, chosen)
        before = resident("VmRSS")
        WAYS[way](root / "ensemble", chosen, out)
    print(resident("VmHWM") - before, flush=True)


def with_predict(ensemble: Path, photos: Path, out: Path) -> None:
    predict(load_ensemble(ensemble, RESOURCES), photos, out)


def by_hand(ensemble: Path, photos: Path, out: Path) -> None:
    """All networks loaded, each asked once about all photos, and the mean of what they say."""
    members = load_ensemble(ensemble, RESOURCES).members
    images = [read_photo(path) for path in sorted(photos.iterdir())]
    softmax = [probabilities(member, images, RESOURCES.device) for member in members]
    torch.stack(softmax).mean(0)


WAYS: dict[str, Callable[[Path, Path, Path], None]] = {"predict": with_predict, "by_hand": by_hand}


def resident(field: str) -> int:
    """VmRSS, the resident set now, or VmHWM, its peak, of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
