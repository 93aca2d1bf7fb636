"""Data that many tests share. Nothing here touches the user's own cache or runs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from trashseg.data.sample import write_sample

if (
    not torch.cuda.is_available()
):  # Triton reads it when it is imported: its kernels then run in numpy
    os.environ["TRITON_INTERPRET"] = "1"

ROOT = Path(__file__).parent.parent
FIRST = (  # files that take a minute or more, and short ones after those of one or two tests
    "faults/test_faults.py",
    "trashseg/test_freezing.py",  # short
    "search/test_faults_in_a_search.py",
    "search/test_search_on_nodes.py",
    "search/test_ablation.py",
    "trashseg/test_member.py",  # short
    "search/test_search_end_to_end.py",
    "search/test_multinode.py",
    "search/test_serve.py",
    "search/test_doors.py",
    "search/test_study.py",
    "search/test_points_differ.py",  # short
    "trashseg/test_rounds_going_on.py",
    "trashseg/test_rounds.py",
    "trashseg/test_train.py",
    "trashseg/demo/test_page_in_chromium.py",
    "trashseg/test_recipes.py",
)


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in its own hook of this name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The fast tests, then the slow ones; those of a file together, on one process.

    The longest files first: where files run side by side, a short one is then the last to begin. But
    pytest-xdist gives the next file to a process that has two tests left, for which it then waits.
    """
    files = [ROOT / "tests" / name for name in FIRST]

    def is_slow(item: pytest.Item) -> bool:
        return item.get_closest_marker("slow") is not None

    def turn(item: pytest.Item) -> tuple[bool, int]:
        return is_slow(item), files.index(item.path) if item.path in files else len(files)

    items.sort(key=turn)
    for item in items:
        file = item.path.relative_to(ROOT / "tests")
        item.add_marker(pytest.mark.xdist_group(f"{'slow' if is_slow(item) else 'fast'} {file}"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("TRASHSEG_CACHE")
    os.environ["TRASHSEG_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["TRASHSEG_CACHE"]
    else:
        os.environ["TRASHSEG_CACHE"] = before


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 built-in scenes of 64x64 pixels."""
    folder = tmp_path_factory.mktemp("data") / "sample"
    write_sample(folder, images=20, size=64, seed=0)
    return folder


@pytest.fixture(scope="session")
def taco() -> Path:
    """209 real photos, where they are at hand."""
    shared = Path(os.environ.get("TRASHSEG_SHARED") or ROOT.parent / "shared" / "data")
    folder = shared / "taco"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: real photos are tested where it is")
    return folder
