"""The GPU's kernels, compiled for one on any machine; what they compute, the other CRF tests compare."""

import os
import subprocess
import sys

import pytest

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from trashseg.crf import on_gpu

SMALL, EXACT = {"num_warps": 1}, on_gpu.EXACT
FLOATS, INTEGERS, CODES, NUMBER = "*fp32", "*i32", "*i64", "i32"
for name, types, constants, options in (
    ("_embed", [FLOATS, FLOATS, CODES, CODES, FLOATS, NUMBER], {"dimensions": 5, "width": 8}, EXACT),
    ("_embed", [FLOATS, FLOATS, CODES, CODES, FLOATS, NUMBER], {"dimensions": 2, "width": 4}, EXACT),
    ("_splat", [FLOATS, FLOATS, INTEGERS, INTEGERS, FLOATS, NUMBER], {"lanes": 16}, SMALL),
    ("_blur", [FLOATS, FLOATS, INTEGERS, NUMBER], {"lanes": 16}, {}),
    ("_update", [FLOATS, FLOATS, FLOATS, INTEGERS, FLOATS, NUMBER], {"lanes": 16, "corners": 9}, {}),
):
    block = on_gpu.ENTRIES if name == "_splat" else on_gpu.POINTS
    kernel, constants = getattr(on_gpu, name), {**constants, "block": block}
    types = [*types, *["constexpr"] * len(constants)]
    source = ASTSource(kernel, dict(zip(kernel.arg_names, types, strict=True)), constants)
    target = GPUTarget("cuda", CAPABILITY, 32)
    made = triton.compile(source, target=target, options=options)
    print(
        name,
        "fits" if made.metadata.shared <= 48 * 1024 else "spills",
        "fused" if "FFMA" in made.asm["sass"] else "exact",
    )
"""


@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_can_be_compiled_for_gpus(capability: int) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    made = subprocess.run(
        [sys.executable, "-c", COMPILE.replace("CAPABILITY", str(capability))],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines() == [
        "_embed fits exact",
        "_embed fits exact",
        "_splat fits fused",
        "_blur fits fused",
        "_update fits fused",
    ]


def test_without_a_gpu_the_error_says_what_to_set() -> None:
    code = (
        "import numpy as np\n"
        "from trashseg.config import CrfConfig\n"
        "from trashseg.crf import refine\n"
        "refine(np.ones((1, 2, 2), np.float32), np.zeros((2, 2, 3), np.uint8), CrfConfig(backend='gpu'))"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": ""}
    made = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert made.returncode != 0
    last = made.stderr.splitlines()[-1]
    assert last.endswith(
        "ConfigError: crf.backend: gpu: there is no GPU here: set crf.backend=lattice"
    )
