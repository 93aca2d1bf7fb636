"""The photos that benches run on: real ones where they are at hand, else rendered ones."""

import os
from pathlib import Path

from trashseg.data.cache import cache_root
from trashseg.data.coco import CocoDataset, load_coco
from trashseg.data.sample import write_sample

ROOT = Path(__file__).parent.parent
SAMPLE_SIZE = 512  # pixels


def bench_photos() -> tuple[CocoDataset, str]:
    """They, and what they are. `TRASHSEG_SHARED` names the folder that holds `taco`."""
    shared = Path(os.environ.get("TRASHSEG_SHARED") or ROOT.parent / "shared" / "data")
    if (shared / "taco").is_dir():
        dataset = load_coco(shared / "taco")
        return dataset, f"{len(dataset.photos)} real photos (TACO)"
    sample = work_folder() / "sample"
    if not sample.is_dir():
        write_sample(sample, size=SAMPLE_SIZE)
    dataset = load_coco(sample)
    return dataset, f"{len(dataset.photos)} rendered photos: {shared / 'taco'} is not there"


def work_folder() -> Path:
    """What a bench makes once and finds again in its next run."""
    return cache_root() / "bench"
