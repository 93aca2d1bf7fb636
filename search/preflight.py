"""Can every node run a trial? All of them are asked at once, before the first trial.

Asked is each node with room for a trial: are the packages and this code the driver's, is what must be
shared (the run's storage, or the place that `search.checkpoint_uri` names) writable and the driver's,
is the data set there with the same content, can the cache of decoded photos be written and has it room,
does torch see the GPUs that Ray gives out, are the disks full (`node_checks`)? A node without room for
a trial, such as a head with `CPU: 0`, needs none of that. MLflow is reached by the driver alone, which
does all the logging: the tracker checks it there. A node that joins later is not asked: what is wrong
there fails its trials.

Without a joined cluster this process checks its own machine. Workers that it starts have its
interpreter, environment and mounts, so versions, shared storage and data set cannot differ; and a
task could not answer the rest differently, it would only cost a worker's start.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.checkpoint_store import open_uri, read_file, write_file
from search.cluster import LOCAL, TrialResources, all_gpus, fits
from search.config import SearchConfig
from search.node_checks import (
    DRIVER,
    Driver,
    Machine,
    disagreements,
    installed,
    reason,
    shortages,
)
from trashseg.data.cache import cache_bytes, cache_key, cache_root, listing_key
from trashseg.data.coco import CocoDataset
from trashseg.errors import ResourceError

# a worker's start on a cold disk, and the import of torch where there are GPUs
NODE_SECONDS = 120.0

Node = dict[str, Any]
"""An entry of `ray.nodes()`."""
Answers = list[tuple[str, list[str]]]
"""Name and problems of each machine; names may repeat, several nodes may run on one machine."""


def preflight(
    config: SearchConfig,
    dataset: CocoDataset,
    resources: TrialResources,
    run_path: Path | None = None,
    seconds: float = NODE_SECONDS,
) -> None:
    """ResourceError, a line a problem, where trials could not run on some node as they would here.

    `dataset`: as the driver read it, its cache already built. `run_path`: the run's folder where it
    exists (a search that goes on); else the folder for runs is tried, and made. `seconds`: limit of
    each node's answer.
    """
    storage = run_path or Path(config.search.storage)
    size = config.data.image_size
    machine = Machine(
        storage,
        cache_key(dataset, size, cache_root()),
        cache_bytes(len(dataset.photos), size),
        config.search.min_free_gb,
        own_storage=config.search.checkpoint_uri is not None,
    )
    shared = config.search.checkpoint_uri or str(storage)
    with _probe(shared) as (probe, token):
        if config.search.address == LOCAL:
            ray_gpus = all_gpus() if resources.gpus else 0
            answers = [("this machine", shortages(machine, ray_gpus))]
        else:
            driver = Driver(
                installed(),
                shared,
                probe,
                token,
                Path(config.search.data_dir),
                listing_key(dataset),
                _weights_file(config.model.weights),
            )
            answers = _ask_nodes(driver, machine, resources, seconds)
    if any(problems for _, problems in answers):
        raise ResourceError(report(answers))


def _weights_file(weights: str) -> Path | None:
    """None for the names of weights that come with a package or from the hub."""
    return Path(weights) if Path(weights).is_file() else None


@contextmanager
def _probe(storage: str) -> Iterator[tuple[str, str]]:
    """Name of a folder in the storage, a path or URI, and what a file in it says, which only those who
    share the storage can read."""
    token = secrets.token_hex(16)
    filesystem, root = open_uri(storage)
    name = f".preflight-{token[:8]}"
    try:
        write_file(filesystem, f"{root}/{name}/{DRIVER}", token.encode())
    except OSError as error:
        raise ResourceError(
            f"storage: {storage} cannot be written ({reason(error)}): choose another --storage"
        ) from None
    try:
        yield name, token
    finally:
        filesystem.delete_dir(f"{root}/{name}")


def _ask_nodes(
    driver: Driver, machine: Machine, resources: TrialResources, seconds: float
) -> Answers:
    asked = _send(driver, machine, resources)
    _, silent = ray.wait(list(asked), num_returns=len(asked), timeout=seconds)
    # without the spot machines that were taken back meanwhile: no trial will go there
    still_there = {node["NodeID"] for node in _trial_nodes(resources)}
    answers: Answers = []
    for reference, node in asked.items():
        if node["NodeID"] in still_there:
            late = reference in silent
            problems = _late(reference, seconds) if late else _answer(reference, driver, node)
            answers.append((f"node {node['NodeName']}", problems))
    if not answers:
        raise ResourceError("no node is left that has room for a trial: see 'ray status'")
    return answers


def _send(driver: Driver, machine: Machine, resources: TrialResources) -> dict[Any, Node]:
    """The question to each node, which runs there and nowhere else."""
    asked: dict[Any, Node] = {}
    for node in _trial_nodes(resources):
        ray_gpus = node["Resources"].get("GPU", 0) if resources.gpus else 0
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = _check_node.options(scheduling_strategy=here)
        asked[task.remote(driver, machine, node["NodeID"], ray_gpus)] = node
    return asked


def _trial_nodes(resources: TrialResources) -> list[Node]:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        node
        for node in nodes
        if node["Alive"] and fits(node["Resources"], resources.cpus, resources.gpus)
    ]


# no CPU: it fits on a busy node. max_calls: torch looks for GPUs once in a process, so a trial that
# came after it in the same one would not be bound to the GPUs that Ray gave it.
@ray.remote(num_cpus=0, max_calls=1, max_retries=0)
def _check_node(driver: Driver, machine: Machine, node: str, ray_gpus: float) -> list[str]:
    return disagreements(driver, node) + shortages(machine, ray_gpus)


def _late(reference: Any, seconds: float) -> list[str]:
    ray.cancel(reference)
    return [f"no answer in {seconds:.0f} s: see the logs there, or 'ray stop' it"]


def _answer(reference: Any, driver: Driver, node: Node) -> list[str]:
    """A node that cannot even run the check, for want of a package for instance, has a problem."""
    try:
        problems = list(ray.get(reference))
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        last_line = (str(cause).strip().splitlines() or [""])[-1]
        return [
            f"the check failed ({type(cause).__name__}: {last_line}): install the same checkout and "
            "requirements.lock there"
        ]
    filesystem, root = open_uri(driver.storage)
    if problems or read_file(filesystem, f"{root}/{driver.probe}/{node['NodeID']}") is not None:
        return problems
    return [
        f"storage: what it wrote to {driver.storage} is not seen by the driver: mount the shared folder "
        "there on every node"
    ]


def report(answers: Answers) -> str:
    """A line a problem, with all nodes that have it; a single problem is the whole message."""
    nodes: dict[str, list[str]] = {}
    for name, problems in answers:
        for problem in problems:
            nodes.setdefault(problem, []).append(name)
    lines = [f"{', '.join(names)}: {problem}" for problem, names in nodes.items()]
    if len(lines) == 1:
        return lines[0]
    bad = sum(bool(problems) for _, problems in answers)
    return "\n  ".join([f"{bad} of {len(answers)} machines cannot run trials:", *lines])
