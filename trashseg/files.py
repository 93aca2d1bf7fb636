"""Files that appear whole or not at all."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trashseg.errors import TrashSegError


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside `path`, then rename; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: Path, tree: Any) -> None:
    write_text(path, json.dumps(tree, indent=1, ensure_ascii=False))


@contextmanager
def json_list(path: Path) -> Iterator[Callable[[Any], None]]:
    """What adds an entry, a line each, to the list that `path` will hold: none stays in memory."""
    with path.open("w", encoding="utf-8") as file:
        before = "[\n"

        def add(entry: Any) -> None:
            nonlocal before
            file.write(before + json.dumps(entry, ensure_ascii=False))
            before = ",\n"

        yield add
        file.write("[]" if before == "[\n" else "\n]")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """In numpy's .npy form."""
    content = io.BytesIO()
    np.save(content, array)
    write_bytes(path, content.getvalue())


@contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when the block ends well and goes when it fails.

    Raises TrashSegError where `path` holds something already, unless it is to be replaced.
    """
    if not replace and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise TrashSegError(f"{path}: exists and is not empty: choose another folder or delete it")
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk, not only in the memory of this machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(folder: Path) -> None:
    """`sync` of a folder and of everything in it."""
    for entry in [*folder.rglob("*"), folder]:
        sync(entry)
