"""Real Ray nodes, several on this machine: joining them, and asking each whether it can run trials."""

import shutil
from pathlib import Path

import pytest
import ray

from search.cluster import TrialResources, await_node, connect, divide
from search.config import SearchConfig, load_search_config
from search.preflight import preflight
from tests.search.nodes import Nodes, can_hide_folders
from trashseg.data.coco import load_coco
from trashseg.errors import ResourceError

pytestmark = pytest.mark.slow

ONE_CPU = TrialResources(1, 0, 2, growing=True)


def search_on(cluster: Nodes, data: Path, storage: Path) -> SearchConfig:
    """Joins the cluster, as a search there does."""
    overrides = [
        f"search.address={cluster.address}",
        f"search.data_dir={data}",
        f"search.storage={storage}",
        "data.image_size=32",
    ]
    connect(cluster.address)
    return load_search_config(None, overrides)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def test_nodes_that_share_all_pass_and_nothing_is_left_in_the_storage(
    cluster: Nodes, sample: Path, storage: Path
) -> None:
    config = search_on(cluster, sample, storage)
    assert divide(config.search, 20) == ONE_CPU
    preflight(config, load_coco(sample), ONE_CPU)
    assert list(storage.iterdir()) == []


def test_the_node_whose_cache_cannot_be_written_is_named(
    cluster: Nodes, sample: Path, storage: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    cluster.add("third", TRASHSEG_CACHE=str(tmp_path / "file" / "cache"))
    config = search_on(cluster, sample, storage)
    with pytest.raises(ResourceError, match=r"^node third: cache: .*file/cache cannot be written"):
        preflight(config, load_coco(sample), ONE_CPU)
    assert list(storage.iterdir()) == []


def test_a_node_without_room_for_a_trial_is_not_asked(
    cluster: Nodes, sample: Path, storage: Path, tmp_path: Path
) -> None:
    """As the head of cluster.yaml: it has no CPUs for trials, its cache matters to nobody."""
    (tmp_path / "file").touch()
    cluster.add("third", cpus=0, TRASHSEG_CACHE=str(tmp_path / "file" / "cache"))
    config = search_on(cluster, sample, storage)
    preflight(config, load_coco(sample), ONE_CPU)


def test_busy_nodes_answer_all_the_same(cluster: Nodes, sample: Path, storage: Path) -> None:
    config = search_on(cluster, sample, storage)
    holder = ray.remote(num_cpus=1)(Holder)
    holders = [holder.remote() for _ in range(2)]
    ray.get([holder.ready.remote() for holder in holders], timeout=120)
    preflight(config, load_coco(sample), ONE_CPU)


class Holder:
    def ready(self) -> None:
        pass


def test_the_node_that_does_not_answer_in_time_is_named(
    cluster: Nodes, sample: Path, storage: Path
) -> None:
    config = search_on(cluster, sample, storage)
    cluster.freeze("second")
    with pytest.raises(
        ResourceError, match=r"^node second: no answer in 20 s: see the logs there, or"
    ):
        preflight(config, load_coco(sample), ONE_CPU, seconds=20)
    assert list(storage.iterdir()) == []


def test_a_node_that_comes_is_waited_for(cluster: Nodes, sample: Path, storage: Path) -> None:
    """None has two CPUs; one with two is added when the search says that it waits."""
    config = search_on(cluster, sample, storage)
    settings = config.search.model_copy(update={"cpus_per_trial": 2})
    said: list[str] = []

    def add_when_told(line: str) -> None:
        said.append(line)
        cluster.add("large", cpus=2)

    await_node(settings, add_when_told, seconds=300)
    assert len(said) == 1
    assert said[0].endswith("a node with 2 CPUs; the largest has 1 CPU and 0 GPUs")
    assert divide(settings, 20) == TrialResources(2, 0, 1, growing=True)


def test_a_node_that_is_taken_away_meanwhile_is_no_matter(
    cluster: Nodes, sample: Path, storage: Path
) -> None:
    """Ray takes a dead node for alive for a while, so it is asked and has no answer."""
    config = search_on(cluster, sample, storage)
    cluster.kill("second")
    preflight(config, load_coco(sample), ONE_CPU)
    assert cluster.alive() == {"first"}


# --- other mounts ------------------------------------------------------------------------------


needs_namespaces = pytest.mark.skipif(
    not can_hide_folders(), reason="no right to make mount namespaces here (unshare)"
)


@needs_namespaces
def test_the_node_that_sees_another_storage_is_named(
    cluster: Nodes, sample: Path, storage: Path
) -> None:
    config = search_on(cluster, sample, storage)
    cluster.add_without(storage, "third")
    with pytest.raises(
        ResourceError, match=rf"^node third: storage: {storage} is not the driver's folder: mount"
    ):
        preflight(config, load_coco(sample), ONE_CPU)
    assert list(storage.iterdir()) == []


@needs_namespaces
def test_the_node_without_the_data_set_is_named(
    cluster: Nodes, sample: Path, storage: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(sample, tmp_path / "mount" / "data"))
    config = search_on(cluster, data, storage)
    cluster.add_without(data.parent, "third")
    with pytest.raises(
        ResourceError, match=rf"^node third: dataset: {data} is not there: mount it on every node$"
    ):
        preflight(config, load_coco(data), ONE_CPU)


@needs_namespaces
def test_the_node_without_the_code_is_named(cluster: Nodes, sample: Path, storage: Path) -> None:
    import search

    config = search_on(cluster, sample, storage)
    cluster.add_without(Path(search.__path__[0]), "third")
    with pytest.raises(
        ResourceError, match=r"^node third: the check failed \(.*search.*\): install"
    ):
        preflight(config, load_coco(sample), ONE_CPU)
