"""Where a trial or fold that is under way is kept, so that another node can go on with it.

By default in the run's folder, which all nodes share then: there is nothing to copy. With
`search.checkpoint_uri` each node has a run folder of its own, and what is under way is copied to a place
that all of them reach through pyarrow: s3://, gs://, hdfs://, file://.

URI/RUN/WHAT/manifest.json     {"version", "writer", "files": {path: digest}}, replaced at once
URI/RUN/WHAT/objects/DIGEST    what the files hold; never changed

A copy is whole or not there: a manifest is written last and names only objects that are there. An object
store has no locks; instead whoever pushes must have seen the newest manifest, so that a worker which was
taken for dead, and still works, cannot overwrite what its successor did.
"""

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from filelock import FileLock, Timeout
from pyarrow import fs

from trashseg.errors import CheckpointError, ConfigError
from trashseg.files import write_bytes, write_json

NOTE = ".copy.json"  # in a folder: the manifest that it was last equal to
LOCK = "lock"
Result = TypeVar("Result")
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)  # between tries to reach the store, in seconds


@dataclass(frozen=True)
class Manifest:
    """What a copy holds: digests of its files' content by path; `writer` tells apart equal versions."""

    version: int = 0
    writer: str = ""
    files: dict[str, str] = field(default_factory=dict)


class CheckpointStore(Protocol):
    """Copies of a run's folders; `what` is the folder's path in the run: "trials/trial_003"."""

    def pull(self, what: str, folder: Path, only: str = "") -> None:
        """Make `folder` what was pushed last, unless it is that, or further, already. `only`: just the
        files whose path has this in it."""

    def read(self, what: str, folder: Path, file: str) -> str:
        """A text file of what was pushed last, empty where there is none; `folder` stays as it is, for
        somebody may be at work there."""

    def push(self, what: str, folder: Path) -> None:
        """Keep `folder` as it is now. CheckpointError where somebody else pushed since the last pull."""

    def drop(self, what: str, folder: Path) -> None:
        """Forget the copy, if there is one: `folder` is this node's alone from now on."""

    def sweep(self, run: Path, kind: str) -> None:
        """Delete what this node has of folders under RUN/KIND that have ended, wherever they did."""


def open_store(uri: str | None, run: str) -> CheckpointStore:
    """The store of the run called `run`. ConfigError where the URI cannot be used."""
    return UriStore(uri, run) if uri else SharedFolder()


def check_unused(uri: str | None, run: str) -> None:
    """ConfigError where there are copies of an earlier run of that name."""
    if uri is None:
        return
    filesystem, root = open_uri(uri)
    selector = fs.FileSelector(f"{root.rstrip('/')}/{run}", allow_not_found=True, recursive=True)
    if any(entry.is_file for entry in patiently(lambda: filesystem.get_file_info(selector))):
        raise ConfigError(
            f"search.checkpoint_uri: {uri} holds checkpoints of a run called {run}: delete them, or "
            "choose another --name"
        )


class SharedFolder:
    """All nodes see the run's folder: what one writes, the next one reads."""

    def pull(self, what: str, folder: Path, only: str = "") -> None:
        pass

    def read(self, what: str, folder: Path, file: str) -> str:
        return (folder / file).read_text() if (folder / file).is_file() else ""

    def push(self, what: str, folder: Path) -> None:
        pass

    def drop(self, what: str, folder: Path) -> None:
        pass

    def sweep(self, run: Path, kind: str) -> None:
        pass


class UriStore:
    """Copies at a URI."""

    def __init__(self, uri: str, run: str) -> None:
        self._fs, root = open_uri(uri)
        self._uri, self._root = uri, f"{root.rstrip('/')}/{run}"

    def pull(self, what: str, folder: Path, only: str = "") -> None:
        there, known = patiently(lambda: self._manifest(what)), read_note(folder)
        if there is None:
            if known is not None:  # of an older run of this name, which is gone
                clear(folder)
            return
        if there == known:
            return
        here = digests(folder)
        for path, digest in there.files.items():
            if only in path and here.get(path) != digest:
                write_bytes(folder / path, self._download(what, digest))
        if not only:
            for path in here.keys() - there.files.keys():
                (folder / path).unlink()
            remove_empty_folders(folder)  # an empty epoch_0007 would pass for a checkpoint
            write_json(folder / NOTE, asdict(there))

    def read(self, what: str, folder: Path, file: str) -> str:
        there = patiently(lambda: self._manifest(what))
        if there is None:
            return SharedFolder().read(what, folder, file)
        return self._download(what, there.files[file]).decode() if file in there.files else ""

    def push(self, what: str, folder: Path) -> None:
        writer = uuid.uuid4().hex
        patiently(lambda: self._push(what, folder, writer))

    def _push(self, what: str, folder: Path, writer: str) -> None:
        there, known = self._manifest(what), read_note(folder)
        if there is None or there.writer != writer:  # else only the answer to it was lost
            if there != known:
                raise CheckpointError(
                    f"{self._uri}: {what} of this run was taken up by another worker: leave it to "
                    "that one"
                )
            there = self._write(what, folder, there or Manifest(), writer)
        write_json(folder / NOTE, asdict(there))

    def _write(self, what: str, folder: Path, before: Manifest, writer: str) -> Manifest:
        had, files = set(before.files.values()), digests(folder)
        for path, digest in files.items():
            if digest not in had:
                self._upload(folder / path, what, digest)
        after = Manifest(before.version + 1, writer, files)
        self._write_manifest(what, after)
        for digest in had - set(files.values()):
            self._fs.delete_file(self._object(what, digest))
        return after

    def drop(self, what: str, folder: Path) -> None:
        copy = f"{self._root}/{what}"
        if patiently(lambda: self._fs.get_file_info(copy).type) != fs.FileType.NotFound:
            patiently(lambda: self._fs.delete_dir(copy))
        (folder / NOTE).unlink(missing_ok=True)

    def sweep(self, run: Path, kind: str) -> None:
        for note in sorted((run / kind).rglob(NOTE)):
            folder = note.parent
            try:
                with FileLock(folder / LOCK, timeout=0):
                    if self._manifest(folder.relative_to(run).as_posix()) is None:
                        clear(folder)
            except Timeout:
                pass  # somebody works on it

    # --- the store's own files -------------------------------------------------------------------

    def _object(self, what: str, digest: str) -> str:
        return f"{self._root}/{what}/objects/{digest}"

    def _manifest(self, what: str) -> Manifest | None:
        content = read_file(self._fs, f"{self._root}/{what}/manifest.json")
        return Manifest(**json.loads(content)) if content is not None else None

    def _write_manifest(self, what: str, manifest: Manifest) -> None:
        path = f"{self._root}/{what}/manifest.json"
        write_file(self._fs, f"{path}.partial", json.dumps(asdict(manifest)).encode())
        self._fs.move(f"{path}.partial", path)

    def _upload(self, file: Path, what: str, digest: str) -> None:
        write_file(self._fs, self._object(what, digest), file.read_bytes())

    def _download(self, what: str, digest: str) -> bytes:
        path = self._object(what, digest)
        content = patiently(lambda: read_file(self._fs, path))
        if content is None or digest_of(content) != digest:
            raise CheckpointError(
                f"{self._uri}: {path} is missing or damaged: delete {self._root}/{what} to start it over"
            )
        return content


# --- a node's folders ------------------------------------------------------------------------------


def digests(folder: Path) -> dict[str, str]:
    """Of every file that is part of a copy, by its path in `folder`; what a kill left half-written,
    locks and notes are not."""
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        file.as_posix(): digest_of((folder / file).read_bytes())
        for file in files
        if file.name not in (NOTE, LOCK) and ".partial" not in file.as_posix()
    }


def digest_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def read_note(folder: Path) -> Manifest | None:
    note = folder / NOTE
    return Manifest(**json.loads(note.read_text())) if note.is_file() else None


def clear(folder: Path) -> None:
    """Everything goes but the lock, which the caller may hold."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def remove_empty_folders(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):  # the innermost first
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


# --- any pyarrow file system -----------------------------------------------------------------------


@lru_cache(maxsize=8)
def open_uri(uri: str) -> tuple[Any, str]:
    """The file system and the path in it of a URI or an absolute path. ConfigError for another one."""
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"search.checkpoint_uri: {uri} cannot be used ({error}): write s3://BUCKET/FOLDER, "
            "gs://BUCKET/FOLDER or file:///FOLDER, with credentials in the environment"
        ) from None
    return filesystem, path


def read_file(filesystem: Any, path: str) -> bytes | None:
    """None where there is no such file."""
    try:
        with filesystem.open_input_stream(path) as stream:
            return bytes(stream.read())
    except FileNotFoundError:
        return None


def write_file(filesystem: Any, path: str, content: bytes) -> None:
    filesystem.create_dir(path.rpartition("/")[0], recursive=True)
    with filesystem.open_output_stream(path) as stream:
        stream.write(content)


def patiently(call: Callable[[], Result]) -> Result:
    """`call`, again after a pause where the store does not answer; its last OSError is raised."""
    for pause in PAUSES:
        try:
            return call()
        except OSError:
            time.sleep(pause)
    return call()
