"""What a process claims of its machine."""

import platform
import resource

import numpy as np
import pytest

from trashseg.device import keep_freed_memory

MEGABYTE = 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_memory_that_was_freed_is_not_asked_of_the_system_again() -> None:
    keep_freed_memory()
    np.ones(64 * MEGABYTE, dtype=np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(64 * MEGABYTE, dtype=np.uint8)
    new_pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert new_pages < 10 * 64 * MEGABYTE / resource.getpagesize() / 10  # all of them, if returned
