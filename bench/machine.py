"""The machine that figures come from, in a line."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "numpy", "numba", "ray", "optuna", "mlflow")


def describe() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    hardware = f"{_processor()}, {os.cpu_count()} CPUs, {_gpu()}"
    return f"{hardware}; Python {platform.python_version()}, {packages}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
