"""Dividing what Ray says it has. The nodes are written by hand, the division is by hand too."""

from typing import Any

import pytest
import ray

from search.cluster import TrialResources, divide
from search.config import SearchSettings
from trashseg.errors import ResourceError

Node = tuple[float, float]  # CPUs and GPUs


def divided(
    monkeypatch: pytest.MonkeyPatch, nodes: list[Node], jobs: int, **settings: Any
) -> TrialResources:
    listed = [
        {"Alive": True, "Resources": {"memory": 1e9, "CPU": cpus} | ({"GPU": gpus} if gpus else {})}
        for cpus, gpus in nodes
    ]
    listed.append({"Alive": False, "Resources": {"CPU": 1000.0, "GPU": 1000.0}})
    monkeypatch.setattr(ray, "nodes", lambda: listed)
    return divide(SearchSettings(**settings), jobs)


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
        ([(8, 1), (8, 1)], {"gpus_per_trial": 2}, r"gpus_per_trial=2: no node .* and 1 GPUs: ask"),
        # no single node has both
        ([(64, 0), (4, 1)], {"cpus_per_trial": 8, "gpus_per_trial": 1}, "no node has that many"),
    ],
)
def test_what_no_node_can_hold_is_refused_rather_than_waited_for(
    monkeypatch: pytest.MonkeyPatch, nodes: list[Node], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ResourceError, match=message):
        divided(monkeypatch, nodes, 20, **settings)
