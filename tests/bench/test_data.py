"""The data bench's peer reads what we read, and its measure of memory counts what it says."""

from pathlib import Path

import pytest

from bench.data import check_equal
from bench.shared_memory import mapped_bytes
from bench.usual_dataset import UsualDataset
from trashseg.augment import normalize
from trashseg.data.cache import open_cache
from trashseg.data.coco import load_coco
from trashseg.data.dataset import SegmentationDataset

SMAPS = """\
7f00-7f10 r--s 00000000 00:21 5 /cache/abc-512/images.npy
Size:            1000 kB
Rss:              900 kB
Pss:              300 kB
Pss_Dirty:          7 kB
VmFlags: rd mr mw me
7f20-7f30 rw-p 00000000 00:00 0
Pss:              555 kB
7f40-7f50 r--s 00000000 00:21 6 /cache/abc-512/masks.npy
Pss:              100 kB
7f60-7f70 r-xp 00000000 00:21 7 /lib/libc.so.6
Pss:               50 kB
"""


@pytest.mark.parametrize("size", [32, 64, 100])  # the photos' size is 64
def test_the_usual_dataset_reads_the_same_photos_and_masks(sample: Path, size: int) -> None:
    dataset = load_coco(sample)
    ours = SegmentationDataset(open_cache(dataset, size))
    drawn = [ours[0, place] for place in range(len(dataset.photos))]
    normalised = [(normalize(image[None], "imagenet")[0], mask) for image, mask in drawn]
    check_equal(normalised, list(UsualDataset(dataset.json_files[0], size)))


def test_of_a_process_only_the_named_files_count() -> None:
    assert mapped_bytes({"images.npy", "masks.npy"}, SMAPS) == 400 * 1024
