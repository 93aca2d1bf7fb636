"""What tensors and arrays take while something runs, byte by byte: a resident set also holds what
allocators keep, and an operator's own buffers."""

import tracemalloc
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocated(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is entered, but not what a network does, nor its answers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        """Bytes of all tensors that were made."""
        self.peak = 0
        """Bytes of tensors and arrays that were there at once, at most, of those made since."""
        self._live = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self._network, self._in_network = network, False

    def __enter__(self) -> "Allocated":
        self._hooks = [
            self._network.register_forward_pre_hook(lambda *_: self._pause(True)),
            self._network.register_forward_hook(lambda *_: self._pause(False)),
        ]
        tracemalloc.start()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        tracemalloc.stop()
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(
                tensor, Tensor
            ):  # it was there before: a parameter, or made by the network
                self._known.add(tensor.untyped_storage())
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and not self._in_network:
                self._count(tensor.untyped_storage())
        return result

    def _pause(self, paused: bool) -> None:
        self._in_network = paused

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.total += size
        self._live += size
        weakref.finalize(storage, self._freed, size)
        self.peak = max(self.peak, self._live + tracemalloc.get_traced_memory()[0])

    def _freed(self, size: int) -> None:
        self._live -= size
