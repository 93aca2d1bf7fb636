"""What makes a node unfit for trials, check by check; tests/search/test_multinode.py asks real nodes."""

import shutil
from pathlib import Path

import pytest
import ray

from search.cluster import TrialResources
from search.config import SearchConfig, load_search_config
from search.node_checks import (
    DRIVER,
    Driver,
    Machine,
    cache_problem,
    code_key,
    dataset_problem,
    disagreements,
    disk_problem,
    gpu_problem,
    installed,
    shortages,
    storage_problem,
    version_problems,
    weights_problem,
)
from search.preflight import preflight, report
from trashseg.data.cache import cache_bytes, listing_key, open_cache
from trashseg.data.coco import load_coco
from trashseg.errors import ResourceError

# --- packages ----------------------------------------------------------------------------------


def test_a_machine_agrees_with_itself() -> None:
    assert version_problems(installed(), installed()) == []
    assert "missing" not in installed().values()


def test_each_differing_package_is_named_with_both_versions() -> None:
    driver = {"python": "3.11", "torch": "2.14.1", "numpy": "2.4.6"}
    node = {"python": "3.12", "torch": "2.14.1"}
    assert version_problems(driver, node) == [
        "packages: python is 3.12, the driver has 3.11: install the same checkout and "
        "requirements.lock there",
        "packages: numpy is missing, the driver has 2.4.6: install the same checkout and "
        "requirements.lock there",
    ]


def test_a_package_that_only_the_node_has_is_no_matter() -> None:
    assert version_problems({"ray": "2.60.0"}, {"ray": "2.60.0", "timm": "1.0"}) == []


def test_the_code_counts_as_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node with an older checkout has the same version number: the files are compared."""
    import trashseg

    copy = tmp_path / "trashseg"
    shutil.copytree(Path(trashseg.__path__[0]), copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = code_key()
    monkeypatch.setattr(trashseg, "__path__", [str(copy)])
    assert code_key() == before, "where it lies does not matter"
    (copy / "losses.py").write_text("# stale\n")
    assert code_key() != before


# --- storage -----------------------------------------------------------------------------------


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / ".preflight-1"
    folder.mkdir(parents=True)
    (folder / DRIVER).write_text("token")
    return folder


def test_a_node_that_shares_the_storage_leaves_its_own_file(probe: Path) -> None:
    assert storage_problem(str(probe.parent), probe.name, "token", "node-a") is None
    assert (probe / "node-a").read_text() == "token"


def test_a_storage_without_the_drivers_file_is_another_folder(probe: Path) -> None:
    (probe / DRIVER).unlink()
    problem = storage_problem(str(probe.parent), probe.name, "token", "node-a")
    assert problem == (
        f"storage: {probe.parent} is not the driver's folder: mount the shared one there on every "
        "node, or choose another --storage"
    )


def test_a_storage_with_anothers_token_is_another_folder(probe: Path) -> None:
    problem = storage_problem(str(probe.parent), probe.name, "other", "node-a")
    assert problem is not None
    assert "is not the driver's folder" in problem
    assert not (probe / "node-a").exists()


def test_a_storage_that_cannot_be_written_says_why(probe: Path) -> None:
    (probe / "node-a").mkdir()  # stands in for a mount without the right to write; root may do all
    problem = storage_problem(str(probe.parent), probe.name, "token", "node-a")
    assert problem == (
        f"storage: {probe.parent} cannot be written (Is a directory): mend its rights or mount"
    )


# --- data set ----------------------------------------------------------------------------------


@pytest.fixture
def copied(sample: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample, tmp_path / "data"))


def test_a_copy_of_the_data_set_is_the_same_data_set(sample: Path, copied: Path) -> None:
    assert dataset_problem(copied, listing_key(load_coco(sample))) is None


def test_a_data_set_that_is_not_mounted_is_named(tmp_path: Path) -> None:
    problem = dataset_problem(tmp_path / "none", "key")
    assert problem == f"dataset: {tmp_path / 'none'} is not there: mount it on every node"


def test_a_missing_photo_is_named(sample: Path, copied: Path) -> None:
    photo = load_coco(copied).photos[3]
    photo.path.unlink()
    problem = dataset_problem(copied, listing_key(load_coco(sample)))
    assert problem is not None
    assert photo.file_name in problem
    assert problem.startswith("dataset: ")


@pytest.mark.parametrize("change", ["json", "photo"])
def test_other_content_under_the_same_path_is_found(
    sample: Path, copied: Path, change: str
) -> None:
    dataset = load_coco(copied)
    file = dataset.json_files[0] if change == "json" else dataset.photos[0].path
    file.write_bytes(file.read_bytes() + b" ")
    problem = dataset_problem(copied, listing_key(load_coco(sample)))
    assert problem == (
        f"dataset: {copied} differs from the driver's: mount or copy the same one everywhere"
    )


def test_a_weights_file_must_be_on_every_node(tmp_path: Path) -> None:
    weights = tmp_path / "encoder.safetensors"
    assert weights_problem(weights) == f"weights: {weights} is not there: copy it to every node"
    weights.touch()
    assert weights_problem(weights) is None


# --- cache, disks, GPUs ------------------------------------------------------------------------


def test_the_cache_is_as_large_as_it_is_said_to_be(sample: Path, tmp_path: Path) -> None:
    """20 photos of 32 x 32 pixels, 3 bytes of photo and 1 of mask each: 81920 bytes."""
    cache = open_cache(load_coco(sample), 32, tmp_path)
    assert cache_bytes(20, 32) == 81920 == cache.images.nbytes + cache.masks.nbytes


def test_a_cache_folder_with_room_is_made(tmp_path: Path) -> None:
    assert cache_problem(tmp_path / "a" / "b", "key-32", needed=1) is None
    assert (tmp_path / "a" / "b").is_dir()


def test_a_cache_folder_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    problem = cache_problem(tmp_path / "file" / "cache", "key-32", needed=1)
    assert problem == (
        f"cache: {tmp_path / 'file' / 'cache'} cannot be written (Not a directory): set "
        "TRASHSEG_CACHE to a roomy local folder before 'ray start' there"
    )


def test_a_disk_too_small_for_the_decoded_photos_is_told_in_numbers(tmp_path: Path) -> None:
    problem = cache_problem(tmp_path, "key-32", needed=2**60)
    assert problem is not None
    assert "the decoded photos need 1073741824.0 GiB" in problem


def test_photos_that_are_decoded_already_need_no_room(tmp_path: Path) -> None:
    (tmp_path / "key-32").mkdir()
    assert cache_problem(tmp_path, "key-32", needed=2**60) is None


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=500_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert disk_problem(tmp_path, 0.5) is None
    assert disk_problem(tmp_path, 0.75) == (
        f"storage: {tmp_path} has 0.50 GB free, search.min_free_gb is 0.75: free some space"
    )


@pytest.mark.parametrize(("seen", "counted"), [(1, 1.0), (4, 4.0), (4, 2.0), (0, 0.0)])
def test_gpus_that_ray_gives_out_are_seen(seen: int, counted: float) -> None:
    assert gpu_problem(seen, counted) is None


@pytest.mark.parametrize(("seen", "counted"), [(0, 1.0), (1, 2.0)])
def test_gpus_that_torch_does_not_see_are_a_problem(seen: int, counted: float) -> None:
    problem = gpu_problem(seen, counted)
    assert problem is not None
    assert problem.startswith(f"GPUs: torch sees {seen}, Ray gives out {counted:g}: ")


# --- the report --------------------------------------------------------------------------------


def test_a_single_problem_is_one_line() -> None:
    answers = [("node a", []), ("node b", ["dataset: /d is not there: mount it on every node"])]
    assert report(answers) == "node b: dataset: /d is not there: mount it on every node"


def test_nodes_with_the_same_problem_share_a_line() -> None:
    answers = [("node a", ["p: q: r"]), ("node b", ["p: q: r", "s: t: u"]), ("node c", [])]
    assert report(answers) == (
        "2 of 3 machines cannot run trials:\n  node a, node b: p: q: r\n  node b: s: t: u"
    )


def test_a_machine_that_is_as_the_drivers_has_no_problem(sample: Path, probe: Path) -> None:
    driver = Driver(
        installed(),
        str(probe.parent),
        probe.name,
        "token",
        sample,
        listing_key(load_coco(sample)),
    )
    assert disagreements(driver, "node-a") == []
    assert shortages(Machine(probe.parent, "key", 1, 0.0), ray_gpus=0) == []


# --- without a cluster -------------------------------------------------------------------------


def local_search(sample: Path, storage: Path) -> SearchConfig:
    overrides = [f"search.data_dir={sample}", f"search.storage={storage}", "data.image_size=32"]
    return load_search_config(None, overrides)


def test_a_local_search_asks_no_worker_and_leaves_nothing(sample: Path, tmp_path: Path) -> None:
    config = local_search(sample, tmp_path / "runs")
    preflight(config, load_coco(sample), TrialResources(1, 0, 1))
    assert not ray.is_initialized(), "nothing of Ray's was needed"
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_local_search_tries_its_storage_before_anything_is_trained(
    sample: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    config = local_search(sample, tmp_path / "file" / "runs")
    with pytest.raises(
        ResourceError, match=r"^storage: .*/file/runs cannot be written \(Not a dir"
    ):
        preflight(config, load_coco(sample), TrialResources(1, 0, 1))


def test_a_local_search_finds_a_cache_that_cannot_be_written(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, dataset = local_search(sample, tmp_path / "runs"), load_coco(sample)
    monkeypatch.setenv("TRASHSEG_CACHE", str(tmp_path / "cache"))  # nothing is there yet
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(ResourceError) as raised:
        preflight(config, dataset, TrialResources(1, 0, 1))
    first, *problems = str(raised.value).splitlines()
    assert first == "1 of 1 machines cannot run trials:"
    assert [line.split(":")[1].strip() for line in problems] == [
        "cache",
        "storage",
    ]
    assert list((tmp_path / "runs").iterdir()) == [], "the probe goes after a failure too"


def test_a_search_that_goes_on_is_tried_in_its_own_folder(sample: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "night"
    run.mkdir(parents=True)
    config = local_search(sample, tmp_path / "elsewhere")
    preflight(config, load_coco(sample), TrialResources(1, 0, 1), run)
    assert not (tmp_path / "elsewhere").exists()
