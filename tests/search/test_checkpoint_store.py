"""Copies of what is under way, on a file system and on an S3 server on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from filelock import FileLock
from moto.server import ThreadedMotoServer
from pyarrow import fs

from search.checkpoint_store import (
    LOCK,
    UriStore,
    check_unused,
    digests,
    open_store,
    open_uri,
    read_file,
)
from trashseg.errors import CheckpointError, ConfigError

WHAT = "trials/trial_003"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """URI of an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    query = f"scheme=http&region=us-east-1&endpoint_override={quote(f'{host}:{port}', safe='')}"
    filesystem, _ = fs.FileSystem.from_uri(
        f"s3://key:secret@bucket?{query}&allow_bucket_creation=true"
    )
    filesystem.create_dir("bucket")
    yield f"s3://key:secret@bucket/{{}}?{query}"
    server.stop()


@pytest.fixture(params=["file", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/shared"
    return str(request.getfixturevalue("s3")).format(tmp_path.name)


@pytest.fixture
def store(uri: str) -> UriStore:
    return UriStore(uri, "night")


def node_folder(tmp_path: Path, node: str) -> Path:
    """The trial's folder on that node."""
    folder = tmp_path / node / "night" / WHAT
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_epoch(folder: Path, epoch: int) -> None:
    """As a trial does: a new checkpoint, the older one goes, a small file is written again."""
    new = folder / "fold_0" / f"epoch_{epoch:04d}"
    (new / "pictures").mkdir(parents=True)
    (new / "model.safetensors").write_bytes(bytes([epoch]) * 1000)
    (new / "pictures" / "a.png").write_bytes(b"png")
    for older in folder.glob(f"fold_0/epoch_{epoch - 1:04d}/**/*"):
        if older.is_file():
            older.unlink()
    for older in sorted(folder.glob(f"fold_0/epoch_{epoch - 1:04d}/**"), reverse=True):
        older.rmdir()
    (folder / "attempts.json").write_text(json.dumps([epoch]))


def content(folder: Path) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in digests(folder)}


def test_another_node_goes_on_with_what_was_pushed_last(store: UriStore, tmp_path: Path) -> None:
    first, second = node_folder(tmp_path, "first"), node_folder(tmp_path, "second")
    for epoch in (1, 2):
        write_epoch(first, epoch)
        store.push(WHAT, first)
    store.pull(WHAT, second)
    assert content(second) == content(first)
    assert sorted(content(second)) == [
        "attempts.json",
        "fold_0/epoch_0002/model.safetensors",
        "fold_0/epoch_0002/pictures/a.png",
    ]


def test_a_folder_that_comes_back_to_a_node_replaces_what_it_left_there(
    store: UriStore, tmp_path: Path
) -> None:
    first, second = node_folder(tmp_path, "first"), node_folder(tmp_path, "second")
    write_epoch(first, 1)
    store.push(WHAT, first)
    store.pull(WHAT, second)
    write_epoch(second, 2)
    store.push(WHAT, second)
    store.pull(WHAT, first)
    assert content(first) == content(second)
    assert [path.name for path in (first / "fold_0").iterdir()] == ["epoch_0002"]


def test_an_epoch_that_was_trained_but_not_pushed_is_kept_by_its_own_node(
    store: UriStore, tmp_path: Path
) -> None:
    folder = node_folder(tmp_path, "first")
    write_epoch(folder, 1)
    store.push(WHAT, folder)
    write_epoch(folder, 2)
    further = content(folder)
    store.pull(WHAT, folder)
    assert content(folder) == further


def test_a_worker_that_was_taken_for_dead_cannot_overwrite_its_successors_work(
    store: UriStore, tmp_path: Path
) -> None:
    dead, successor = node_folder(tmp_path, "dead"), node_folder(tmp_path, "successor")
    write_epoch(dead, 1)
    store.push(WHAT, dead)
    store.pull(WHAT, successor)
    write_epoch(successor, 2)
    store.push(WHAT, successor)
    write_epoch(dead, 2)
    with pytest.raises(CheckpointError, match=r"trials/trial_003 of this run was taken up by"):
        store.push(WHAT, dead)
    store.drop(WHAT, successor)
    with pytest.raises(CheckpointError, match="was taken up by another worker"):
        store.push(WHAT, dead)


def test_a_push_that_is_killed_leaves_the_copy_before_it_whole(
    store: UriStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its manifest is written: the worst moment, all objects are there by then."""
    first, second = node_folder(tmp_path, "first"), node_folder(tmp_path, "second")
    write_epoch(first, 1)
    store.push(WHAT, first)
    before = content(first)
    write_epoch(first, 2)
    with monkeypatch.context() as patch:
        patch.setattr(UriStore, "_write_manifest", killed)
        with pytest.raises(KeyboardInterrupt):
            store.push(WHAT, first)
    store.pull(WHAT, second)
    assert content(second) == before
    store.push(WHAT, first)
    third = node_folder(tmp_path, "third")
    store.pull(WHAT, third)
    assert content(third) == content(first)


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_push_whose_answer_was_lost_is_not_taken_for_anothers(
    store: UriStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = node_folder(tmp_path, "first")
    write_epoch(folder, 1)
    written = UriStore._write_manifest
    lost = [True]

    def write_and_lose_the_answer(self: UriStore, *arguments: object) -> None:
        written(self, *arguments)  # type: ignore[arg-type]
        if lost.pop() if lost else False:
            raise OSError("the connection broke")

    monkeypatch.setattr(UriStore, "_write_manifest", write_and_lose_the_answer)
    monkeypatch.setattr("search.checkpoint_store.PAUSES", (0.0,))
    store.push(WHAT, folder)
    write_epoch(folder, 2)
    store.push(WHAT, folder)
    second = node_folder(tmp_path, "second")
    store.pull(WHAT, second)
    assert content(second) == content(folder)


def test_only_what_is_new_travels_and_what_is_gone_is_deleted(
    uri: str, store: UriStore, tmp_path: Path
) -> None:
    folder = node_folder(tmp_path, "first")
    (folder / "best.safetensors").write_bytes(b"best" * 100)
    (folder / "state.pt").write_bytes(b"one")
    store.push(WHAT, folder)
    (folder / "state.pt").write_bytes(b"two")
    store.push(WHAT, folder)
    filesystem, root = open_uri(uri)
    objects = fs.FileSelector(f"{root}/night/{WHAT}/objects")
    kept = {entry.base_name for entry in filesystem.get_file_info(objects) if entry.is_file}
    assert kept == set(digests(folder).values())


def test_what_a_kill_left_half_written_locks_and_notes_do_not_travel(
    store: UriStore, tmp_path: Path
) -> None:
    first, second = node_folder(tmp_path, "first"), node_folder(tmp_path, "second")
    write_epoch(first, 1)
    (first / "fold_0" / "epoch_0002.partial").mkdir()
    (first / "fold_0" / "epoch_0002.partial" / "state.pt").touch()
    (first / LOCK).touch()
    store.push(WHAT, first)
    store.pull(WHAT, second)
    assert {path.split("/")[-2] for path in content(second) if "fold_0" in path} == {
        "epoch_0001",
        "pictures",
    }
    assert not (second / LOCK).exists()


def test_parts_can_be_pulled_and_read(store: UriStore, tmp_path: Path) -> None:
    first, home = node_folder(tmp_path, "first"), node_folder(tmp_path, "home")
    assert store.read(WHAT, home, "attempts.json") == ""
    write_epoch(first, 1)
    store.push(WHAT, first)
    assert store.read(WHAT, home, "attempts.json") == "[1]"
    assert list(home.iterdir()) == [], "reading leaves nothing"
    store.pull(WHAT, home, only="/pictures/")
    assert list(content(home)) == ["fold_0/epoch_0001/pictures/a.png"]
    store.pull(WHAT, home)
    assert content(home) == content(first)


def test_a_dropped_copy_is_gone_and_the_folder_is_its_nodes_own(
    uri: str, store: UriStore, tmp_path: Path
) -> None:
    folder = node_folder(tmp_path, "home")
    write_epoch(folder, 1)
    store.push(WHAT, folder)
    with pytest.raises(ConfigError, match=r"holds checkpoints of a run called night: delete them"):
        check_unused(uri, "night")
    check_unused(uri, "another")
    store.drop(WHAT, folder)
    store.drop(WHAT, folder)
    check_unused(uri, "night")
    before = content(folder)
    store.pull(WHAT, folder)
    assert content(folder) == before
    assert store.read(WHAT, folder, "attempts.json") == "[1]"


def test_leftovers_of_ended_trials_are_swept_and_those_under_way_stay(
    store: UriStore, tmp_path: Path
) -> None:
    run = tmp_path / "node" / "night"
    ended, busy, open_ = (run / "trials" / name for name in ("trial_000", "trial_001", "trial_002"))
    for folder in (ended, busy, open_):
        folder.mkdir(parents=True)
        write_epoch(folder, 1)
        store.push(f"trials/{folder.name}", folder)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("trial_000", "trial_001"):
        store.drop(f"trials/{name}", elsewhere)
    with FileLock(busy / LOCK):
        store.sweep(run, "trials")
    assert content(ended) == {}
    assert content(busy) != {}
    assert content(open_) != {}


def test_what_an_older_run_of_the_same_name_left_on_a_node_is_not_taken_up(
    uri: str, store: UriStore, tmp_path: Path
) -> None:
    stale = node_folder(tmp_path, "stale")
    write_epoch(stale, 7)
    store.push(WHAT, stale)
    store.drop(WHAT, tmp_path)  # by the driver, on another node
    store.pull(WHAT, stale)
    assert content(stale) == {}
    write_epoch(stale, 1)
    store.push(WHAT, stale)


def test_a_damaged_object_is_named(uri: str, store: UriStore, tmp_path: Path) -> None:
    folder = node_folder(tmp_path, "first")
    (folder / "state.pt").write_bytes(b"whole")
    store.push(WHAT, folder)
    [digest] = digests(folder).values()
    filesystem, root = open_uri(uri)
    path = f"{root}/night/{WHAT}/objects/{digest}"
    assert read_file(filesystem, path) == b"whole"
    with filesystem.open_output_stream(path) as stream:
        stream.write(b"wh")
    with pytest.raises(CheckpointError, match=rf"objects/{digest} is missing or damaged: delete"):
        store.pull(WHAT, node_folder(tmp_path, "second"))


@pytest.mark.parametrize("uri", ["foo://bucket/x", "relative/folder"])
def test_a_uri_that_pyarrow_does_not_know_is_named(uri: str) -> None:
    with pytest.raises(ConfigError, match=rf"search\.checkpoint_uri: {uri} cannot be used \(.*s3:"):
        open_store(uri, "night")


def test_without_a_uri_the_folder_itself_is_the_store(tmp_path: Path) -> None:
    store = open_store(None, "night")
    (tmp_path / "history.jsonl").write_text("line\n")
    store.push(WHAT, tmp_path)
    store.pull(WHAT, tmp_path)
    store.drop(WHAT, tmp_path)
    assert store.read(WHAT, tmp_path, "history.jsonl") == "line\n"
    assert store.read(WHAT, tmp_path, "none") == ""
    assert list(tmp_path.iterdir()) == [tmp_path / "history.jsonl"]
