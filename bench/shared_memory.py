"""What several processes that read one cache hold of it, each page divided by those who share it."""

import multiprocessing
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from trashseg.data.cache import open_cache
from trashseg.data.coco import CocoDataset

SMAPS = Path("/proc/self/smaps")


def proportional_bytes(dataset: CocoDataset, size: int, processes: int) -> int:
    """The sum of the processes' proportional set sizes of the cache's two files, when each has read
    all of it and none has left."""
    context = multiprocessing.get_context("spawn")
    together, sizes = context.Barrier(processes), context.Queue()
    arguments = dataset, size, together, sizes
    readers = [context.Process(target=_read_all, args=arguments) for _ in range(processes)]
    for reader in readers:
        reader.start()
    held = [sizes.get() for _ in readers]
    for reader in readers:
        reader.join()
    return sum(held)


def _read_all(dataset: CocoDataset, size: int, together: Barrier, sizes: "Queue[int]") -> None:
    cache = open_cache(dataset, size)
    for pixels in (cache.images, cache.masks):
        pixels.max()
    together.wait()  # all have read
    held = mapped_bytes({"images.npy", "masks.npy"}, SMAPS.read_text())
    together.wait()  # all have looked
    sizes.put(held)


def mapped_bytes(files: set[str], smaps: str) -> int:
    """Proportional set size of all maps of files with these names: see proc(5)."""
    total, counts = 0, False
    for line in smaps.splitlines():
        field, *values = line.split()
        if not field.endswith(":"):  # a map begins: its addresses, ..., its file
            counts = bool(values) and Path(values[-1]).name in files
        elif field == "Pss:" and counts:
            total += int(values[0]) * 1024  # kB
    return total
