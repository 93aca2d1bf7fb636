"""Where a network runs, and with how many threads, how much memory, which precision and layout."""

import ctypes
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import cv2
import torch
from torch import nn

from trashseg.config import TrainConfig

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT = 2**30  # bytes


@dataclass(frozen=True)
class Resources:
    """What one process may use: CPU threads in all, the device, and its share of a GPU's memory."""

    cpus: int
    device: torch.device
    gpu_memory: float = 1.0

    def claim(self) -> None:
        """Keep this process to them: more threads than CPUs get in each other's way, and Ray keeps no
        trial from taking the whole GPU (ray issue 3947)."""
        torch.set_num_threads(self.cpus)
        cv2.setNumThreads(0)
        keep_freed_memory()
        if self.device.type == "cuda" and self.gpu_memory < 1.0:
            torch.cuda.set_per_process_memory_fraction(self.gpu_memory)


def local_resources(cpus: int | None = None, gpu_memory: float = 1.0) -> Resources:
    """This machine's GPU, where there is one, and `cpus` of its CPUs, or all that it may use."""
    if cpus is None:
        has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
        cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Resources(cpus, device, gpu_memory)


def device_name(device: torch.device) -> str:
    """For people: the GPU's model, or CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for what is allocated next. Every step allocates what the
    step before has freed; glibc returns large pieces to the system by default, and then each page is
    handed out and cleared anew: 3 to 10% of a step on a CPU, a quarter of an augmented photo. What is
    kept goes to pieces where sizes vary, so that it grows: see `return_freed_memory`. Other C libraries
    have no mallopt: nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def return_freed_memory() -> None:
    """Give the system what is free, once, between epochs; a worker that is used by trial after trial
    would else keep what the largest of them left in pieces."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def make_deterministic(seed: int, device: torch.device) -> None:
    torch.manual_seed(seed)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


RandomState = list[torch.Tensor]


def random_state() -> RandomState:
    """Of the CPU, then of each GPU."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *gpus]


def set_random_state(state: RandomState) -> None:
    """Put it back; on a machine with other GPUs than it comes from, that of the CPU alone."""
    torch.set_rng_state(state[0])
    if torch.cuda.is_available() and len(state) == 1 + torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state[1:])


def memory_format(config: TrainConfig, device: torch.device) -> torch.memory_format:
    channels_last = config.memory_format == "channels_last" or (
        config.memory_format == "auto" and device.type == "cuda"
    )
    return torch.channels_last if channels_last else torch.contiguous_format


def place(model: nn.Module, config: TrainConfig, device: torch.device) -> None:
    """Move the network to its device and memory layout, in place."""
    model.to(device)
    model.to(memory_format=memory_format(config, device))


def set_precision(config: TrainConfig) -> None:
    """How CUDA multiplies float32 numbers, in the whole process. Unless a precision is asked for it is
    as torch has it: convolutions in TF32, matrix products not. By these two names: torch.export reads
    them, and stops where only a single operator's `fp32_precision` was set (torch 2.14)."""
    torch.backends.cudnn.allow_tf32 = config.precision != "float32"
    torch.backends.cuda.matmul.allow_tf32 = config.precision == "tf32"


def compile_network(model: nn.Module, config: TrainConfig) -> None:
    """In place, where it is asked for: names, weights and copies of it stay what they are."""
    if config.compile:
        model.compile()


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[None]:
    """bfloat16 where asked for, or where a CUDA device has it; on CPUs it is many times slower."""
    bfloat16 = config.precision == "bfloat16" or (
        config.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    return torch.autocast(device.type, dtype=torch.bfloat16) if bfloat16 else nullcontext()
