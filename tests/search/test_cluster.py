"""Dividing what Ray says it has. The nodes are written by hand, the division is by hand too."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from search.cluster import (
    TrialResources,
    await_node,
    connect,
    divide,
    gpu_part,
    why_not,
)
from search.config import SearchConfig, SearchSettings
from search.packing import trials_in_gpu, trials_per_gpu
from trashseg.errors import ResourceError

Node = tuple[float, float]  # CPUs and GPUs


def divided(
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[Node],
    jobs: int,
    per_gpu: int = 1,
    **settings: Any,
) -> TrialResources:
    pretend(monkeypatch, nodes)
    return divide(SearchSettings(**settings), jobs, per_gpu)


def pretend(monkeypatch: pytest.MonkeyPatch, nodes: list[Node]) -> None:
    listed = [
        {"Alive": True, "Resources": {"memory": 1e9, "CPU": cpus} | ({"GPU": gpus} if gpus else {})}
        for cpus, gpus in nodes
    ]
    listed.append({"Alive": False, "Resources": {"CPU": 1000.0, "GPU": 1000.0}})
    monkeypatch.setattr(ray, "nodes", lambda: listed)


@pytest.mark.parametrize(
    ("nodes", "jobs", "expected"),
    [
        # CPUs only: a trial a CPU while there are enough trials, else the CPUs are shared out
        ([(2, 0)], 20, TrialResources(1, 0, 2)),
        ([(2, 0)], 1, TrialResources(2, 0, 1)),
        ([(8, 0)], 20, TrialResources(1, 0, 8)),
        ([(8, 0)], 4, TrialResources(2, 0, 4)),
        ([(8, 0)], 3, TrialResources(2, 0, 3)),  # 8 // 3 = 2; a fourth would fit but is not there
        ([(64, 0)], 20, TrialResources(3, 0, 20)),  # 64 // 20 = 3
        ([(64, 0)], 100, TrialResources(1, 0, 64)),
        # GPUs: one a trial, and the CPUs are shared among them
        ([(8, 1)], 20, TrialResources(8, 1, 1)),
        ([(48, 4)], 20, TrialResources(12, 1, 4)),
        ([(48, 4)], 2, TrialResources(24, 1, 2)),
        # several nodes: cluster.yaml's workers, with a head that trains nothing
        ([(0, 0)] + [(4, 1)] * 8, 20, TrialResources(4, 1, 8)),
        ([(4, 0)] * 3, 100, TrialResources(1, 0, 12)),
        ([(4, 0)] * 3, 3, TrialResources(4, 0, 3)),
        ([(4, 0)] * 3, 1, TrialResources(4, 0, 1)),  # a trial does not spread over nodes
    ],
)
def test_the_whole_cluster_is_busy(
    monkeypatch: pytest.MonkeyPatch, nodes: list[Node], jobs: int, expected: TrialResources
) -> None:
    assert divided(monkeypatch, nodes, jobs) == expected


@pytest.mark.parametrize(
    ("nodes", "settings", "expected"),
    [
        ([(8, 0)], {"cpus_per_trial": 3}, TrialResources(3, 0, 2)),  # 8 // 3
        ([(8, 0), (2, 0)], {"cpus_per_trial": 3}, TrialResources(3, 0, 2)),
        ([(8, 2)], {"gpus_per_trial": 2}, TrialResources(8, 2, 1)),
        ([(8, 1)], {"gpus_per_trial": 0.5}, TrialResources(4, 0.5, 2)),
        ([(8, 1)], {"gpus_per_trial": 0}, TrialResources(1, 0, 8)),  # leave the GPU alone
        ([(8, 4)], {"cpus_per_trial": 4}, TrialResources(4, 1, 2)),  # CPUs are the narrower
        ([(20, 1)], {"gpus_per_trial": 0.1}, TrialResources(2, 0.1, 10)),  # in floats 1 // 0.1 = 9
    ],
)
def test_what_is_asked_for_is_given(
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[Node],
    settings: dict[str, Any],
    expected: TrialResources,
) -> None:
    assert divided(monkeypatch, nodes, 20, **settings) == expected


def test_trials_on_gpus_are_sized_by_the_nodes_that_have_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A big CPU machine beside a small GPU machine: the trial must fit the latter."""
    assert divided(monkeypatch, [(64, 0), (4, 1)], 20) == TrialResources(4, 1, 1)


def test_uneven_nodes_are_all_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """11 CPUs for 2 trials would be 5 each, which only the larger node has; 3 each fit both."""
    assert divided(monkeypatch, [(8, 0), (3, 0)], 2).concurrent == 2


def test_the_request_is_what_tune_takes() -> None:
    assert TrialResources(3, 0.5, 2).request == {"cpu": 3, "gpu": 0.5}


@pytest.mark.parametrize(
    ("nodes", "settings", "message"),
    [
        (
            [(2, 0)],
            {"gpus_per_trial": 1},
            r"search\.gpus_per_trial=1: no node has that many; the largest has 2 CPUs and 0 GPUs",
        ),
        ([(8, 0), (4, 0)], {"cpus_per_trial": 9}, r"search\.cpus_per_trial=9, .*has 8 CPUs and 0"),
        ([(8, 1), (8, 1)], {"gpus_per_trial": 2}, r"gpus_per_trial=2: no node .* and 1 GPU: ask"),
        # no single node has both
        ([(64, 0), (4, 1)], {"cpus_per_trial": 8, "gpus_per_trial": 1}, "no node has that many"),
        # two halves on two nodes are not one GPU
        ([(4, 0.5), (4, 0.5)], {"gpus_per_trial": 1}, r"4 CPUs and 0\.5 GPUs: ask for less"),
        # Ray itself refuses these
        (
            [(8, 2)],
            {"gpus_per_trial": 1.5},
            r"=1\.5: Ray gives out parts of one GPU .*: use 1 or 2",
        ),
        ([(8, 2)], {"gpus_per_trial": 1e-5}, r"=1e-05: Ray counts no less than 0\.0001: use more"),
    ],
)
def test_what_no_node_can_hold_is_refused_rather_than_waited_for(
    monkeypatch: pytest.MonkeyPatch, nodes: list[Node], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ResourceError, match=message):
        divided(monkeypatch, nodes, 20, **settings)


# --- several trials on a GPU -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peak_share", "trials"),
    [
        (0.9, 1),
        (0.5, 1),  # 0.5 * 1.15 = 0.575: two do not fit
        (0.44, 1),  # 0.506
        (0.43, 2),  # 0.4945
        (0.29, 2),  # 0.3335: three do not fit
        (0.28, 3),  # 0.322
        (0.1, 8),  # 0.115: 8.7
        (0.001, 8),  # the cap
        (1.0, 1),  # it runs alone or not at all; that it may not fit is the trial's own error
    ],
)
def test_as_many_trials_share_a_gpu_as_fit_with_the_margin(peak_share: float, trials: int) -> None:
    assert trials_per_gpu(peak_share) == trials


@pytest.mark.parametrize("trials", range(1, 9))
def test_all_parts_of_a_gpu_fit_into_it_in_rays_units(trials: int) -> None:
    units = round(gpu_part(trials) * 10_000)  # Ray rounds a seventh up: 7 * 1429 > 10000
    assert units * trials <= 10_000 < (units + 1) * trials


@pytest.mark.parametrize(
    ("nodes", "jobs", "per_gpu", "expected"),
    [
        ([(8, 1)], 20, 3, TrialResources(2, 0.3333, 3)),  # 8 // 3 CPUs each
        ([(8, 1)], 20, 7, TrialResources(1, 0.1428, 7)),
        ([(16, 2)], 20, 4, TrialResources(2, 0.25, 8)),
        ([(4, 1)] * 3, 100, 2, TrialResources(2, 0.5, 6)),
        ([(4, 1)], 20, 8, TrialResources(1, 0.25, 4)),  # four CPUs feed no more than four trials
        ([(4, 1)], 2, 8, TrialResources(2, 0.5, 2)),  # two jobs need no eighths
        ([(8, 4)], 4, 2, TrialResources(2, 1, 4)),  # nor do four on four GPUs
        ([(2, 4)], 20, 8, TrialResources(1, 1, 2)),  # fewer CPUs than GPUs
        ([(8, 0)], 20, 8, TrialResources(1, 0, 8)),  # no GPU, nothing to share
    ],
)
def test_a_gpu_is_shared_by_as_many_as_fit_its_memory_its_cpus_and_the_jobs(
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[Node],
    jobs: int,
    per_gpu: int,
    expected: TrialResources,
) -> None:
    assert divided(monkeypatch, nodes, jobs, per_gpu) == expected


def test_a_part_set_by_hand_is_not_divided_further(monkeypatch: pytest.MonkeyPatch) -> None:
    assert divided(monkeypatch, [(8, 1)], 20, 8, gpus_per_trial=0.5).gpus == 0.5


def test_cpus_set_by_hand_limit_how_many_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    resources = divided(monkeypatch, [(8, 1)], 20, 8, cpus_per_trial=3)
    assert resources == TrialResources(3, 0.5, 2)  # 8 // 3


@pytest.mark.parametrize(("gpus", "share"), [(0.0, 1.0), (0.25, 0.25), (1.0, 1.0), (2.0, 1.0)])
def test_a_trial_may_take_the_memory_of_its_part(gpus: float, share: float) -> None:
    assert TrialResources(1, gpus, 1).gpu_memory == share


def test_a_part_set_by_hand_needs_no_measuring() -> None:
    config = SearchConfig(search=SearchSettings(gpus_per_trial=0.5))
    assert trials_in_gpu(config, 3, pytest.fail) == 1


# --- a cluster that grows ----------------------------------------------------------------------


def test_on_this_machine_tune_never_proposes_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    assert divided(monkeypatch, [(4, 0)], 20).max_concurrent == 4


def test_on_a_cluster_the_nodes_of_the_start_are_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    resources = divided(monkeypatch, [(4, 0)], 20, address="10.0.0.1:6379")
    assert (resources.concurrent, resources.max_concurrent) == (4, None)


@pytest.mark.parametrize(
    ("nodes", "settings"),
    [
        ([(0, 0)], {"address": "local"}),  # what this process started will not grow
        ([(0, 0), (4, 0)], {"address": "auto"}),
        ([(0, 0), (4, 1)], {"address": "auto", "gpus_per_trial": 0.5, "cpus_per_trial": 4}),
    ],
)
def test_a_node_that_is_there_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, nodes: list[Node], settings: dict[str, Any]
) -> None:
    pretend(monkeypatch, nodes)
    await_node(SearchSettings(**settings), pytest.fail)


@pytest.fixture
def two_pretended_gpus() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Holder:
    """Keeps its part of a GPU for as long as it lives."""

    def gpu(self) -> str:
        return str(ray.get_gpu_ids())


@pytest.mark.slow
def test_ray_places_as_many_parts_on_a_gpu_as_were_divided(two_pretended_gpus: None) -> None:
    """Six thirds of two GPUs live at once, three on each."""
    holder = ray.remote(num_cpus=0, num_gpus=gpu_part(3))(Holder)
    holders = [holder.remote() for _ in range(6)]
    held = Counter(ray.get([holder.gpu.remote() for holder in holders], timeout=120))
    assert sorted(held.values()) == [3, 3]


@pytest.mark.slow
def test_a_node_that_never_comes_is_an_error(two_pretended_gpus: None) -> None:
    said: list[str] = []
    settings = SearchSettings(address="auto", gpus_per_trial=3)
    with pytest.raises(ResourceError, match=r"no node with 1 CPU and 3 GPUs came in 1 s; the larg"):
        await_node(settings, said.append, seconds=1)
    assert said == [
        "waiting up to 0 minutes for a node with 1 CPU and 3 GPUs; the largest has 2 CPUs and 2 GPUs"
    ]


@pytest.mark.slow
def test_an_address_without_a_cluster_is_one_line() -> None:
    with pytest.raises(
        ResourceError, match=r"^--address 127\.0\.0\.1:9: no Ray .*Connection refused"
    ):
        connect("127.0.0.1:9")


def test_a_version_mismatch_is_told_in_full() -> None:
    error = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")
    error.__cause__ = RuntimeError(
        "Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n"
    )
    assert why_not(error) == (
        "Version mismatch: The cluster was started with: Ray: 2.59.0: install the same "
        "requirements.lock here and there"
    )


def test_ray_that_does_not_come_up_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray raises a plain Exception after half a minute; the wait is left out here."""

    def too_late(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nSee the logs.")

    monkeypatch.setattr(ray, "init", too_late)
    with pytest.raises(
        ResourceError,
        match=r"^--address local: Ray did not start \(The current node timed out .*\.\): wait until",
    ):
        connect("local")


def test_a_bug_in_ray_is_not_taken_for_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(**_: object) -> None:
        raise TypeError("unexpected")

    monkeypatch.setattr(ray, "init", bug)
    with pytest.raises(TypeError, match="unexpected"):
        connect("local")
