"""How this package's loops are compiled: by numba, once on each machine, and then read from disk.

numba keeps machine code in `$NUMBA_CACHE_DIR`, else in `__pycache__` beside the source, else, where that
cannot be written, in the user's cache folder; a file of it appears whole or not at all, so that several
processes may compile at once. It is compiled anew for another processor, numba or source file.
"""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

OPTIONS = {"nogil": True, "error_model": "numpy"}


def compiled(function: Function) -> Function:
    """`function`, compiled at its first call for the types of that call; its sums may be reordered and
    its multiply-adds fused."""
    return _compiled(function, fastmath=True)


def compiled_exactly(function: Function) -> Function:
    """The same, but every operation is rounded, in the order in which it is written."""
    return _compiled(function, fastmath=False)


def _compiled(function: Function, fastmath: bool) -> Function:
    try:
        made: Function = numba.njit(cache=True, fastmath=fastmath, **OPTIONS)(function)
    except RuntimeError as error:  # numba found no folder that it may write to
        warnings.warn(
            f"{error}: it is compiled in every process: set NUMBA_CACHE_DIR to a folder",
            stacklevel=3,
        )
        made = numba.njit(fastmath=fastmath, **OPTIONS)(function)
    return made
