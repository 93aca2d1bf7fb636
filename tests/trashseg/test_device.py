"""What a process claims of its machine."""

import platform
import resource
from pathlib import Path

import numpy as np
import pytest

from trashseg.device import keep_freed_memory, return_freed_memory

MEGABYTE = 2**20


only_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")


def resident() -> int:
    """Bytes of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@only_glibc
def test_memory_that_was_freed_is_not_asked_of_the_system_again() -> None:
    keep_freed_memory()
    np.ones(64 * MEGABYTE, dtype=np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(64 * MEGABYTE, dtype=np.uint8)
    new_pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert new_pages < 10 * 64 * MEGABYTE / resource.getpagesize() / 10  # all of them, if returned


@only_glibc
def test_what_is_kept_is_the_systems_again_once_it_is_returned() -> None:
    keep_freed_memory()
    np.ones(64 * MEGABYTE, dtype=np.uint8)
    kept = resident()
    return_freed_memory()
    assert kept - resident() > 60 * MEGABYTE
