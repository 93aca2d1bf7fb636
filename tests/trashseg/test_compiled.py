"""Where compiled code is kept, for whom, and what happens where it cannot be."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from trashseg.compiled import compiled

ROOT = Path(__file__).parents[2]
REFINE = """
import numpy as np
from trashseg.config import CrfConfig
from trashseg.crf import refine
rng = np.random.default_rng(0)
votes = rng.dirichlet(np.ones(3), (20, 30)).transpose(2, 0, 1).astype(np.float32)
print(refine(votes, rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), CrfConfig()).tobytes().hex())
"""


def _start(kept: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(kept)}
    return subprocess.Popen(
        [sys.executable, "-c", REFINE], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )


def _written(kept: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in kept.rglob("*.nbc")}


@pytest.mark.slow
def test_processes_that_compile_at_once_agree_and_the_next_one_compiles_nothing(
    tmp_path: Path,
) -> None:
    both = [_start(tmp_path) for _ in range(2)]
    first, second = (process.communicate()[0] for process in both)
    assert len(first) > 1000
    assert first == second
    kept = _written(tmp_path)
    assert kept
    assert _start(tmp_path).communicate()[0] == first
    assert _written(tmp_path) == kept


def test_where_nothing_can_be_kept_it_says_so_and_compiles_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # the only locator left is that of notebooks, which has no place for a function of a file
    monkeypatch.setattr(numba.config, "CACHE_LOCATOR_CLASSES", "IPythonCacheLocator")

    def twice(x: int) -> int:
        return 2 * x

    with pytest.warns(UserWarning, match="set NUMBA_CACHE_DIR to a folder"):
        made = compiled(twice)
    assert made(21) == 42
    assert made.__class__.__name__ == "CPUDispatcher"
