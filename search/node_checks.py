"""What makes a machine unfit for a trial: each check returns "what: where: what to do", or nothing."""

import hashlib
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import search
import trashseg
from search.checkpoint_store import open_uri, read_file, write_file
from trashseg.data.cache import cache_root, listing_key
from trashseg.data.coco import load_coco
from trashseg.errors import ConfigError, DataError

DRIVER = "driver"
PACKAGES = (
    "ray",
    "torch",
    "segmentation-models-pytorch",
    "timm",
    "albumentations",
    "opencv-python-headless",
    "numpy",
)

Versions = dict[str, str]


@dataclass(frozen=True)
class Machine:
    """What a trial needs of a machine for itself."""

    storage: Path
    cache_key: str
    cache_bytes: int
    min_free_gb: float
    """In the storage, with which trials do not wait for room."""
    own_storage: bool = False
    """The storage is not shared: it is made where it is missing."""


@dataclass(frozen=True)
class Driver:
    """What the driver has, so every other machine must have it too."""

    versions: Versions
    storage: str
    """Path or URI of what all nodes share."""
    probe: str
    """Folder in it with a file of the driver's, which holds the token."""
    token: str
    data_dir: Path
    listing: str
    weights: Path | None = None
    """File that the encoder starts from, where it is one."""


def disagreements(driver: Driver, node: str) -> list[str]:
    """Where this machine is not as the driver's; `node` names the file it leaves in the probe."""
    checks = [
        *version_problems(driver.versions, installed()),
        storage_problem(driver.storage, driver.probe, driver.token, node),
        dataset_problem(driver.data_dir, driver.listing),
        weights_problem(driver.weights) if driver.weights else None,
    ]
    return [problem for problem in checks if problem]


def shortages(machine: Machine, ray_gpus: float) -> list[str]:
    """What this machine lacks; `ray_gpus`: those that Ray gives out here, 0 where trials use none."""
    checks = [
        cache_problem(cache_root(), machine.cache_key, machine.cache_bytes),
        (machine.own_storage and folder_problem(machine.storage))
        or disk_problem(machine.storage, machine.min_free_gb),
        gpu_problem(visible_gpus(), ray_gpus) if ray_gpus else None,
    ]
    return [problem for problem in checks if problem]


def installed() -> Versions:
    """Versions that must agree; this repository's is a digest of its code."""
    versions = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in PACKAGES:
        try:
            # torch is 2.9.0+cpu on one machine and 2.9.0+cu130 on the next: the same code
            versions[package] = metadata.version(package).partition("+")[0]
        except metadata.PackageNotFoundError:
            versions[package] = "missing"
    return versions | {"trashseg": code_key()}


def code_key() -> str:
    """8 hex digits of every Python file of the two packages."""
    digest = hashlib.blake2b(digest_size=4)
    for package in (trashseg, search):
        root = Path(package.__path__[0])
        for file in sorted(root.rglob("*.py")):
            digest.update(f"{file.relative_to(root.parent)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def version_problems(expected: Versions, found: Versions) -> list[str]:
    differing = [name for name in expected if found.get(name, "missing") != expected[name]]
    return [
        f"packages: {name} is {found.get(name, 'missing')}, the driver has {expected[name]}: "
        "install the same checkout and requirements.lock there"
        for name in differing
    ]


def storage_problem(storage: str, probe: str, token: str, node: str) -> str | None:
    """Read the driver's file, leave one of the node's own."""
    try:
        filesystem, root = open_uri(storage)
        if read_file(filesystem, f"{root}/{probe}/{DRIVER}") == token.encode():
            write_file(filesystem, f"{root}/{probe}/{node}", token.encode())
            return None
    except ConfigError as error:
        return str(error)
    except OSError as error:
        return f"storage: {storage} cannot be written ({reason(error)}): mend its rights or mount"
    return (
        f"storage: {storage} is not the driver's folder: mount the shared one there on every node, "
        "or choose another --storage"
    )


def reason(error: OSError) -> str:
    """pyarrow puts a sentence of its own where Python has the system's."""
    return os.strerror(error.errno) if error.errno else str(error)


def folder_problem(folder: Path) -> str | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"storage: {folder} cannot be made ({error.strerror}): choose another --storage"
    return None


def dataset_problem(data_dir: Path, listing: str) -> str | None:
    if not data_dir.is_dir():
        return f"dataset: {data_dir} is not there: mount it on every node"
    try:
        found = listing_key(load_coco(data_dir))
    except DataError as error:
        return f"dataset: {error}"
    except OSError as error:
        return f"dataset: {data_dir} cannot be read ({error.strerror}): mend its rights or mount"
    if found == listing:
        return None
    return f"dataset: {data_dir} differs from the driver's: mount or copy the same one everywhere"


def weights_problem(weights: Path) -> str | None:
    return None if weights.is_file() else f"weights: {weights} is not there: copy it to every node"


def cache_problem(root: Path, key: str, needed: int) -> str | None:
    """`needed`: bytes of the decoded photos, which every node keeps on a disk of its own."""
    do = "set TRASHSEG_CACHE to a roomy local folder before 'ray start' there"
    try:
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    except OSError as error:
        return f"cache: {root} cannot be written ({error.strerror}): {do}"
    free = shutil.disk_usage(root).free
    if (root / key).is_dir() or free >= needed:
        return None
    return f"cache: {root} has {gib(free)} free, the decoded photos need {gib(needed)}: {do}"


def disk_problem(storage: Path, min_free_gb: float) -> str | None:
    free = shutil.disk_usage(storage).free / 1e9
    if free >= min_free_gb:
        return None
    return (
        f"storage: {storage} has {free:.2f} GB free, search.min_free_gb is {min_free_gb:g}: free some "
        "space"
    )


def visible_gpus() -> int:
    """GPUs that torch can use; a driver too old for this torch leaves none."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def gpu_problem(seen: int, ray_gpus: float) -> str | None:
    if seen >= ray_gpus:
        return None
    return (
        f"GPUs: torch sees {seen}, Ray gives out {ray_gpus:g}: renew the NVIDIA driver, or state "
        "the right --num-gpus to 'ray start'"
    )


def gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
