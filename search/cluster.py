"""Ray: starting or joining a cluster, and dividing what it has among trials."""

import logging
import socket
from dataclasses import dataclass
from typing import Any

import ray

from search.config import SearchSettings
from trashseg.errors import ResourceError


@dataclass(frozen=True)
class TrialResources:
    """What one trial gets, and how many run at once."""

    cpus: int
    gpus: float
    concurrent: int

    @property
    def request(self) -> dict[str, float]:
        return {"cpu": self.cpus, "gpu": self.gpus}


def connect(address: str) -> str:
    """Join the cluster at `address`, or start one on this machine; returns the dashboard's address.

    `ray.init()` without an address would join any stale cluster it finds: "local" never does.
    """
    if ray.is_initialized():
        return str(ray.get_runtime_context().gcs_address)
    try:
        _knock(address)
        context = ray.init(
            address=address,
            include_dashboard=True if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError) as error:
        raise ResourceError(
            f"--address {address}: no Ray cluster there ({str(error).splitlines()[0]}): "
            "start one with 'ray start --head' or 'ray up cluster.yaml', or leave --address out"
        ) from None
    return f"http://{context.dashboard_url}" if context.dashboard_url else "not running"


def _knock(address: str) -> None:
    """ConnectionError where nothing listens at HOST:PORT: Ray would try for eight minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except OSError as error:
            raise ConnectionError(error.strerror or str(error)) from None


def divide(settings: SearchSettings, jobs: int) -> TrialResources:
    """Resources of one trial of `jobs` in all, such that the whole cluster is busy.

    Raises ResourceError where no node can hold a trial: Ray itself would wait for ever (ray issue
    17359).
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    all_cpus = int(sum(node.get("CPU", 0) for node in nodes))
    all_gpus = sum(node.get("GPU", 0) for node in nodes)
    largest = int(max(node.get("CPU", 0) for node in nodes))
    wanted = settings.gpus_per_trial
    gpus = float(bool(all_gpus)) if wanted == "auto" else wanted
    at_once = min(jobs, int(all_gpus / gpus) if gpus else all_cpus)
    if settings.cpus_per_trial == "auto":  # the most that leave room for as many at once
        shares = (cpus for cpus in range(largest, 1, -1) if _room(nodes, cpus, gpus) >= at_once)
        cpus = next(shares, 1)
    else:
        cpus = settings.cpus_per_trial
    if not any(_fits(node, cpus, gpus) for node in nodes):
        raise ResourceError(
            f"search.cpus_per_trial={cpus}, search.gpus_per_trial={gpus:g}: no node has that many; "
            f"the largest has {largest} CPUs and {max(n.get('GPU', 0) for n in nodes):g} GPUs: "
            "ask for less"
        )
    return TrialResources(cpus, gpus, min(_room(nodes, cpus, gpus), jobs))


def _room(nodes: list[dict[str, Any]], cpus: int, gpus: float) -> int:
    """How many trials fit; Ray counts GPUs in ten-thousandths, floats alone would lose one."""
    return sum(
        int(
            min(
                node.get("CPU", 0) // cpus,
                (round(node.get("GPU", 0) * 1e4) // round(gpus * 1e4)) if gpus else float("inf"),
            )
        )
        for node in nodes
    )


def _fits(node: dict[str, Any], cpus: int, gpus: float) -> bool:
    return bool(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus)
