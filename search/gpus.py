"""How busy this machine's NVIDIA GPUs are."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import pynvml  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Gpu:
    """One of them, now; None for what it does not tell, as a GPU that is split (MIG) does."""

    name: str
    busy: int | None
    """Percent of the last moments in which it computed something."""
    used: int | None
    """Bytes of its memory."""
    total: int | None


def read_gpus() -> list[Gpu]:
    """All GPUs of this machine, in the driver's order; none where there is no NVIDIA driver."""
    return [
        Gpu(
            name=str(pynvml.nvmlDeviceGetName(device)),
            busy=_told(pynvml.nvmlDeviceGetUtilizationRates, device, "gpu"),
            used=_told(pynvml.nvmlDeviceGetMemoryInfo, device, "used"),
            total=_told(pynvml.nvmlDeviceGetMemoryInfo, device, "total"),
        )
        for device in _devices()
    ]


@cache
def _devices() -> list[Any]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no library, or one without a driver: no GPU that could be shown
        return []
    return [
        pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
    ]


def _told(ask: Any, device: Any, key: str) -> int | None:
    try:
        return int(getattr(ask(device), key))
    except pynvml.NVMLError:  # not supported, or lost: no search ends because of what it shows
        return None
