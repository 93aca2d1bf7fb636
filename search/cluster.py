"""Ray: starting or joining a cluster, and dividing what it has among trials."""

import logging
import math
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import AuthenticationError

from search.config import SearchSettings
from trashseg.errors import ResourceError

LOCAL = "local"
NODE_SECONDS = 900.0  # a cloud machine boots and installs in about ten minutes
GPU_UNITS = 10_000  # Ray counts GPUs in ten-thousandths

Say = Callable[[str], None]
Node = dict[str, Any]
"""What Ray counts on a node: CPU, GPU, memory."""


@dataclass(frozen=True)
class TrialResources:
    """What one trial gets, and how many run at once."""

    cpus: int
    gpus: float
    concurrent: int
    """Trials that fit on the nodes that are there now."""
    growing: bool = False
    """Nodes may join during the search: it was started on a cluster, not by this process."""

    @property
    def request(self) -> dict[str, float]:
        return {"cpu": self.cpus, "gpu": self.gpus}

    @property
    def gpu_memory(self) -> float:
        """Share of its GPU's memory that a trial may take; Ray itself isolates none (issue 3947)."""
        return self.gpus if 0 < self.gpus < 1 else 1.0

    @property
    def max_concurrent(self) -> int | None:
        """Trials that are out at once; None lets Ray place as many as fit.

        With a number, Tune proposes a trial only when one may run. Without, it keeps exactly one
        proposal waiting for a place (its default with a searcher, `TUNE_MAX_PENDING_TRIALS_PG`),
        which starts on a node that joins and makes an autoscaler add one. So a growing cluster is
        used as it grows, one node after another, and at most one proposal at a time was made
        without the newest results. Do not raise that variable: each further waiting trial is a
        proposal that learned nothing. Nodes wanted at once are the cluster's `min_workers`.
        """
        return None if self.growing else self.concurrent

    def __str__(self) -> str:
        return counted(self.cpus, self.gpus) if self.gpus else counted(self.cpus)


def counted(cpus: float, gpus: float | None = None) -> str:
    """Such as `1 CPU and 2 GPUs`."""
    counts = [(cpus, "CPU")] if gpus is None else [(cpus, "CPU"), (gpus, "GPU")]
    return " and ".join(f"{count:g} {unit}{'s' * (count != 1)}" for count, unit in counts)


# --- joining -----------------------------------------------------------------------------------


def connect(address: str) -> str:
    """Join the cluster at `address`, or start one on this machine; returns the dashboard's address.

    `ray.init()` without an address would join any stale cluster it finds: "local" never does. What
    "local" starts listens on 127.0.0.1 and asks for a token (Ray's default since 2.59).

    Raises ResourceError where there is no cluster, or one of another version or token, or where Ray's
    own processes do not come up in time.
    """
    if ray.is_initialized():
        return str(ray.get_runtime_context().gcs_address)
    try:
        _knock(address)
        with _loopback_only(address == LOCAL):
            context = ray.init(
                address=address,
                include_dashboard=True if address == LOCAL else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, ValueError, AuthenticationError) as error:
        raise ResourceError(f"--address {address}: {why_not(error)}") from None
    except Exception as error:
        if type(error) is not Exception:  # with which Ray says that its processes did not come up
            raise
        raise ResourceError(
            f"--address {address}: Ray did not start ({str(error).splitlines()[0]}): wait until the "
            "machine is less busy and try again; Ray's logs are in session_latest of its temporary "
            "folder"
        ) from error
    return f"http://{context.dashboard_url}" if context.dashboard_url else "not running"


def why_not(error: Exception) -> str:
    """Ray hides a wrong token or version in the cause of a ConnectionError that says nothing."""
    reason = str(error.__cause__ or error)
    if "AuthenticationError" in reason or isinstance(error, AuthenticationError):
        return (
            "the cluster's token is not this machine's: copy ~/.ray/auth_token from its head node "
            "and export RAY_AUTH_MODE=token"
        )
    if "Version mismatch" in reason:
        return f"{' '.join(reason.split())}: install the same requirements.lock here and there"
    return (
        f"no Ray cluster there ({reason.splitlines()[0]}): start one with 'ray start --head' or "
        "'ray up cluster.yaml', or leave --address out"
    )


def _knock(address: str) -> None:
    """ConnectionError where nothing listens at HOST:PORT: Ray would try for eight minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except OSError as error:
            raise ConnectionError(error.strerror or str(error)) from None


@contextmanager
def _loopback_only(wanted: bool) -> Iterator[None]:
    """Within, a cluster that starts has the address 127.0.0.1, and Ray then binds to that alone.

    Ray does so by itself on macOS and Windows (issue 18730) and has no parameter for it elsewhere:
    `_node_ip_address="127.0.0.1"` is turned into the machine's outer address again.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = before and not wanted
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def await_node(settings: SearchSettings, say: Say, seconds: float = NODE_SECONDS) -> None:
    """Wait until a node of the joined cluster can hold a trial: its machines may still be booting.

    A waiting task of a trial's size is what makes an autoscaler start the first one. Returns at
    once where a node is there or the cluster is this process's own. Raises ResourceError.
    """
    cpus, gpus = smallest_trial(settings)
    nodes = alive_nodes()
    if settings.address == LOCAL or any(fits(node, cpus, gpus) for node in nodes):
        return
    wanted = f"a node with {TrialResources(cpus, gpus, 1)}"
    say(f"waiting up to {seconds / 60:.0f} minutes for {wanted}; {_largest(nodes)}")
    place = _no_op.options(num_cpus=cpus, num_gpus=gpus).remote()
    ready, _ = ray.wait([place], timeout=seconds)
    if not ready:
        ray.cancel(place)
        raise ResourceError(
            f"--address {settings.address}: no node with {TrialResources(cpus, gpus, 1)} came in "
            f"{seconds:.0f} s; {_largest(alive_nodes())}: see 'ray status' there, or ask for less"
        )


@ray.remote(max_retries=0)
def _no_op() -> None:
    pass


# --- dividing ----------------------------------------------------------------------------------


def divide(settings: SearchSettings, jobs: int, per_gpu: int = 1) -> TrialResources:
    """Resources of one trial of `jobs` in all, such that the nodes that are there are all busy.

    `per_gpu`: how many trials fit into one GPU's memory (`packing.trials_in_gpu`), used where
    `gpus_per_trial` is auto and there are CPUs and jobs for as many.

    Raises ResourceError where no node can hold a trial: Ray itself would wait for ever (ray issue
    17359).
    """
    nodes = alive_nodes()
    fewest, _ = smallest_trial(settings)
    gpus = settings.gpus_per_trial
    if gpus == "auto":
        gpus = _share_of_gpu(nodes, fewest, jobs, per_gpu)
    cpus = fewest
    if settings.cpus_per_trial == "auto":  # the most that leave room for as many at once
        at_once = max(1, min(jobs, _room(nodes, fewest, gpus)))
        largest = int(max(node.get("CPU", 0) for node in nodes))
        shares = (cpus for cpus in range(largest, 1, -1) if _room(nodes, cpus, gpus) >= at_once)
        cpus = next(shares, 1)
    if not any(fits(node, cpus, gpus) for node in nodes):
        raise ResourceError(
            f"search.cpus_per_trial={cpus}, search.gpus_per_trial={gpus:g}: no node has that many; "
            f"{_largest(nodes)}: ask for less"
        )
    concurrent = min(_room(nodes, cpus, gpus), jobs)
    return TrialResources(cpus, gpus, concurrent, growing=settings.address != LOCAL)


def alive_nodes() -> list[Node]:
    """Of the whole cluster, the driver's machine included."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def all_gpus() -> float:
    return float(sum(node.get("GPU", 0) for node in alive_nodes()))


def smallest_trial(settings: SearchSettings) -> tuple[int, float]:
    """CPUs and GPUs that a trial needs at least; ResourceError for what Ray refuses to count."""
    cpus = 1 if settings.cpus_per_trial == "auto" else settings.cpus_per_trial
    gpus = 0.0 if settings.gpus_per_trial == "auto" else settings.gpus_per_trial
    if gpus > 1 and not gpus.is_integer():
        raise ResourceError(
            f"search.gpus_per_trial={gpus:g}: Ray gives out parts of one GPU or whole GPUs: use "
            f"{math.floor(gpus)} or {math.ceil(gpus)}"
        )
    if 0 < gpus * GPU_UNITS < 1:
        raise ResourceError(
            f"search.gpus_per_trial={gpus:g}: Ray counts no less than {1 / GPU_UNITS:g}: use more"
        )
    return cpus, gpus


def _share_of_gpu(nodes: list[Node], cpus: int, jobs: int, per_gpu: int) -> float:
    """GPUs of one trial: no more trials on a GPU than it has CPUs for, and none left idle."""
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
    if not with_gpus:
        return 0.0
    by_cpus = min(int(node.get("CPU", 0) // (cpus * node["GPU"])) for node in with_gpus)
    by_jobs = math.ceil(jobs / sum(node["GPU"] for node in with_gpus))
    return gpu_part(max(1, min(per_gpu, by_cpus, by_jobs)))


def gpu_part(trials: int) -> float:
    """1 / trials, rounded down: seven sevenths rounded to Ray's units would be more than one GPU."""
    return GPU_UNITS // trials / GPU_UNITS


def _room(nodes: list[Node], cpus: int, gpus: float) -> int:
    """How many trials fit; in Ray's units, floats alone would lose one."""
    return sum(
        int(
            min(
                node.get("CPU", 0) // cpus,
                (round(node.get("GPU", 0) * GPU_UNITS) // round(gpus * GPU_UNITS))
                if gpus
                else float("inf"),
            )
        )
        for node in nodes
    )


def fits(node: Node, cpus: int, gpus: float) -> bool:
    return _room([node], cpus, gpus) > 0


def _largest(nodes: list[Node]) -> str:
    cpus, gpus = (max(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    return f"the largest has {counted(cpus, gpus)}"
