"""How fast a GPU trains the team's two recipes: one rung after another, and several trials at once.

Each measurement is a process of its own (bench/gpu_steps.py), so that precision, compiled kernels and
peak memory are its alone. Without a GPU the rows say that they are not measured.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.comparison import Bar, Comparison, UnequalResultsError
from trashseg.data.sample import write_sample

RECIPES = ("deeplabv3plus_resnext101_32x4d", "fpn_efficientnet_b4")
SIZE, PHOTOS = 512, 56  # half of them are trained on: 4 batches of the recipes' 7
PLAIN = ("precision=float32", "memory_format=contiguous")
BEST = ("precision=bfloat16", "memory_format=channels_last")
RUNGS: dict[str, tuple[str, ...]] = {  # settings as of --set
    "fp32": PLAIN,
    "TF32": ("precision=tf32", "memory_format=contiguous"),
    "bf16": ("precision=bfloat16", "memory_format=contiguous"),
    "bf16 and channels_last": BEST,
    "bf16, channels_last and compile": (*BEST, "compile=true"),
}
SHARED, TOP = list(RUNGS)[-2:]  # without compiling, which each trial would do for itself
PACKED = (1, 2, 4, 8)
NO_GPU = "no GPU is at hand"
CLOSE = 0.05  # relative, of the first step's loss: bfloat16 has 8 bits
GIGABYTE = 2**30


@dataclass(frozen=True)
class Measured:
    """What bench/gpu_steps.py prints."""

    speed: float
    """Images per second."""
    peak_bytes: int
    micro_batch: int
    """Photos on the GPU at once: fewer than the recipe's batch where memory was short."""
    first_loss: float


def run() -> list[Comparison]:
    if not torch.cuda.is_available():
        return [row for recipe in RECIPES for row in [*ladder(recipe), *packed(recipe)]]
    with tempfile.TemporaryDirectory() as folder:
        write_sample(Path(folder) / "sample", images=PHOTOS, size=SIZE, seed=0)
        results = []
        for recipe in RECIPES:
            bare, rungs = climb(Path(folder), recipe)
            results += ladder(recipe, bare, rungs)
            results += packed(recipe, {1: [rungs[SHARED]], **pack(Path(folder), recipe)})
        return results


# --- rows --------------------------------------------------------------------------------------


def ladder(
    recipe: str, bare: Measured | None = None, rungs: dict[str, Measured] | None = None
) -> list[Comparison]:
    return [
        Comparison(
            name=f"gpu_ladder: {recipe}, {name}, against the bare fp32 loop",
            unit="images/s",
            bar=Bar(">=", 3.0) if name == TOP else None,
            ours=rungs[name].speed if rungs else None,
            peer=bare.speed if bare else None,
            note=f"peak {rungs[name].peak_bytes / GIGABYTE:.1f} GiB, first losses alike"
            if rungs
            else NO_GPU,
        )
        for name in RUNGS
    ]


def packed(recipe: str, together: dict[int, list[Measured]] | None = None) -> list[Comparison]:
    """Trials that share a GPU, all their images together, against one that has it alone."""
    speeds = {n: sum(one.speed for one in found) for n, found in (together or {}).items() if found}
    return [
        Comparison(
            name=f"gpu_ladder: {recipe}, {count} at once on a GPU, against one",
            unit="images/s",
            bar=None,
            ours=speeds.get(count),
            peer=speeds.get(1),
            note=about(together[count]) if together else NO_GPU,
        )
        for count in PACKED
    ]


def about(found: Sequence[Measured]) -> str:
    if not found:
        return "they do not fit the GPU's memory"
    memory = sum(one.peak_bytes for one in found) / GIGABYTE
    smallest = min(one.micro_batch for one in found)
    return f"bf16 and channels_last; {memory:.1f} GiB in all, {smallest} photos at once each"


# --- measuring ---------------------------------------------------------------------------------


def climb(root: Path, recipe: str) -> tuple[Measured, dict[str, Measured]]:
    """The bare loop and each rung, alone on the GPU, after a look at their first losses: all start from
    the same weights and photos."""
    [bare] = measure(root, recipe, "bare", PLAIN)
    rungs = {name: measure(root, recipe, "ours", rung)[0] for name, rung in RUNGS.items()}
    for name, one in rungs.items():
        if abs(one.first_loss - bare.first_loss) > CLOSE * bare.first_loss:
            raise UnequalResultsError(
                f"gpu_ladder: {recipe}: the first loss is {one.first_loss:.4g} with {name}, "
                f"{bare.first_loss:.4g} in the bare fp32 loop"
            )
    return bare, rungs


def pack(root: Path, recipe: str) -> dict[int, list[Measured]]:
    """Several trainings at once, by their number."""
    return {n: measure(root, recipe, "ours", RUNGS[SHARED], n) for n in PACKED if n > 1}


def measure(
    root: Path, recipe: str, way: str, settings: Sequence[str], count: int = 1
) -> list[Measured]:
    """So many trainings that begin their steps together; none where one of them ran out of memory."""
    command = [sys.executable, "-m", "bench.gpu_steps", str(root / "sample"), recipe, way]
    command += [str(1 / count), *settings]
    trainings = [
        subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(count)
    ]
    ready = [training.stdout.readline() for training in trainings if training.stdout]
    for training in trainings:
        assert training.stdin is not None
        training.stdin.write("go\n" if all(ready) else "")
        training.stdin.flush()
    answers = [training.communicate()[0] for training in trainings]
    for training in trainings:
        if training.returncode:
            raise subprocess.CalledProcessError(training.returncode, command)
    return [Measured(**json.loads(answer)) for answer in answers] if all(answers) else []
