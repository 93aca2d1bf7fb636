"""The cache: equal to decoding directly, keyed by content, built once and never seen half-built."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trashseg.data import cache as cache_module
from trashseg.data.cache import cache_root, dataset_key, open_cache, resize_photo
from trashseg.data.coco import load_coco, rasterize, read_photo
from trashseg.errors import DataError


@pytest.fixture
def photos(sample: Path, tmp_path: Path) -> Path:
    """A copy of the sample that a test may change."""
    return Path(shutil.copytree(sample, tmp_path / "photos"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _no_build(*_: object) -> None:
    raise AssertionError("built again")


def test_images_and_masks_equal_direct_decoding(sample: Path, root: Path) -> None:
    dataset = load_coco(sample)
    cache = open_cache(dataset, 32, root)
    assert cache.images.shape == (20, 32, 32, 3)
    assert cache.masks.shape == (20, 32, 32)
    assert cache.images.dtype == cache.masks.dtype == np.uint8
    for row, photo in enumerate(dataset.photos):
        bgr = cv2.imread(str(photo.path))
        image = cv2.resize(bgr[..., ::-1], (32, 32), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(cache.images[row], image)
        # From 64 to 32, the nearest to the middle of output pixel i (2i + 1) is pixel 2i + 1.
        np.testing.assert_array_equal(cache.masks[row], rasterize(photo)[1::2, 1::2])


def test_at_the_photos_own_size_nothing_is_changed(sample: Path, root: Path) -> None:
    dataset = load_coco(sample)
    cache = open_cache(dataset, 64, root)
    for row, photo in enumerate(dataset.photos):
        np.testing.assert_array_equal(cache.images[row], read_photo(photo.path))
        np.testing.assert_array_equal(cache.masks[row], rasterize(photo))


def test_class_pixels_count_the_cached_masks(sample: Path, root: Path) -> None:
    dataset = load_coco(sample)
    cache = open_cache(dataset, 32, root)
    assert cache.class_pixels.shape == (20, len(dataset.classes))
    assert (cache.class_pixels.sum(axis=1) == 32 * 32).all()
    for index in range(len(dataset.classes)):
        counts = (cache.masks == index).sum(axis=(1, 2))
        np.testing.assert_array_equal(cache.class_pixels[:, index], counts)


def test_the_maps_cannot_be_written_to(sample: Path, root: Path) -> None:
    cache = open_cache(load_coco(sample), 32, root)
    with pytest.raises(ValueError, match="read-only"):
        cache.images[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        cache.masks[0] = 0


def test_the_second_opening_does_not_build(
    sample: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_coco(sample)
    first = open_cache(dataset, 32, root)
    monkeypatch.setattr(cache_module, "_build", _no_build)
    second = open_cache(load_coco(sample), 32, root)
    assert first.key == second.key
    np.testing.assert_array_equal(first.images, second.images)
    with pytest.raises(AssertionError, match="built again"):
        open_cache(dataset, 96, root)  # another size is another cache


def test_a_changed_photo_gives_another_key_and_its_new_pixels(photos: Path, root: Path) -> None:
    before = open_cache(load_coco(photos), 32, root)
    black = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1]
    (photos / "photos/000003.jpg").write_bytes(black.tobytes())
    after = open_cache(load_coco(photos), 32, root)
    assert after.key != before.key
    assert not after.images[3].any()
    np.testing.assert_array_equal(after.images[4], before.images[4])


def test_a_changed_json_gives_another_key_and_its_new_masks(photos: Path, root: Path) -> None:
    before = open_cache(load_coco(photos), 32, root)
    file = photos / "train_all.json"
    tree = json.loads(file.read_text())
    tree["annotations"] = [a for a in tree["annotations"] if a["image_id"] != 5]
    file.write_text(json.dumps(tree))
    after = open_cache(load_coco(photos), 32, root)
    assert after.key != before.key
    assert before.masks[5].any()
    assert not after.masks[5].any()


def test_touching_or_moving_the_files_keeps_the_key(
    photos: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_cache(load_coco(photos), 32, root)
    monkeypatch.setattr(cache_module, "_build", _no_build)
    for path in photos.rglob("*.*"):
        os.utime(path, (1, 1))
    assert open_cache(load_coco(photos), 32, root).key == before.key
    moved = photos.rename(photos.with_name("elsewhere"))
    assert open_cache(load_coco(moved), 32, root).key == before.key
    assert before.key == f"{dataset_key(load_coco(moved))}-32"


def test_a_photo_changed_in_place_at_its_old_size_is_read_again(photos: Path, root: Path) -> None:
    path = photos / "photos/000000.jpg"
    open_cache(load_coco(photos), 32, root)
    path.write_bytes(path.read_bytes()[::-1])  # the same size, and no photo any more
    os.utime(path, (7, 7))  # a file system with coarse times could give it its old one
    with pytest.raises(DataError, match=r"000000.jpg: is not a readable photo: replace it"):
        open_cache(load_coco(photos), 32, root)


def test_what_a_killed_build_left_is_not_read_and_is_replaced(sample: Path, root: Path) -> None:
    dataset = load_coco(sample)
    whole = open_cache(dataset, 32, root)
    expected = np.array(whole.images)
    folder = root / whole.key
    (folder / "class_pixels.npy").unlink()
    folder.rename(root / f"{whole.key}.partial")
    np.save(root / f"{whole.key}.partial/images.npy", np.zeros((20, 32, 32, 3), np.uint8))
    np.testing.assert_array_equal(open_cache(dataset, 32, root).images, expected)
    assert not (root / f"{whole.key}.partial").exists()


def test_a_failed_build_leaves_no_folder(photos: Path, root: Path) -> None:
    (photos / "photos/000019.jpg").write_text("this is no photo")  # the last one
    with pytest.raises(DataError, match=r"000019.jpg: is not a readable photo"):
        open_cache(load_coco(photos), 32, root)
    assert [path.name for path in root.iterdir() if path.is_dir()] == ["keys"]


def _open(folder: Path, root: Path, gate: "multiprocessing.synchronize.Barrier") -> None:
    dataset = load_coco(folder)
    build = cache_module._build

    def counted(*arguments: object) -> None:
        (root / f"built-by-{os.getpid()}").touch()
        build(*arguments)  # type: ignore[arg-type]

    cache_module._build = counted
    gate.wait()
    cache = open_cache(dataset, 32, root)
    np.save(root / f"seen-by-{os.getpid()}.npy", cache.images)


@pytest.mark.slow
def test_processes_that_ask_at_once_share_one_build(sample: Path, root: Path) -> None:
    root.mkdir()
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(3)
    workers = [context.Process(target=_open, args=(sample, root, gate)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(list(root.glob("built-by-*"))) == 1
    expected = open_cache(load_coco(sample), 32, root).images
    seen = [np.load(path) for path in root.glob("seen-by-*.npy")]
    assert len(seen) == 3
    for images in seen:
        np.testing.assert_array_equal(images, expected)


def _stall(folder: Path, root: Path) -> None:
    def endless(photo: object) -> None:
        (root / "started").touch()
        time.sleep(600)

    cache_module.rasterize = endless  # type: ignore[assignment]
    open_cache(load_coco(folder), 32, root)


@pytest.mark.slow
def test_a_build_that_is_killed_leaves_nothing_readable_and_holds_no_lock(
    sample: Path, root: Path
) -> None:
    root.mkdir()
    worker = multiprocessing.get_context("spawn").Process(target=_stall, args=(sample, root))
    worker.start()
    while not (root / "started").exists():
        assert worker.is_alive()
        time.sleep(0.05)
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join()
    key = f"{dataset_key(load_coco(sample))}-32"
    assert (root / f"{key}.partial").is_dir()
    assert not (root / key).exists()
    cache = open_cache(load_coco(sample), 32, root)
    assert cache.class_pixels.sum() == 20 * 32 * 32
    assert not (root / f"{key}.partial").exists()


def test_the_root_is_the_environments_or_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRASHSEG_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("TRASHSEG_CACHE")
    assert cache_root() == Path.home() / ".cache" / "trashseg"


def test_shrinking_averages_areas() -> None:
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    image[0, 0] = 100  # one of the four pixels that become one: 25
    assert resize_photo(image, 2)[..., 0].tolist() == [[25, 0], [0, 0]]


def test_a_photo_that_is_not_square_becomes_square() -> None:
    image = np.zeros((2, 8, 3), dtype=np.uint8)
    image[:, 4:] = 200
    assert resize_photo(image, 2)[..., 0].tolist() == [[0, 200], [0, 200]]


@given(value=st.integers(0, 255), height=st.integers(1, 40), width=st.integers(1, 40))
def test_one_colour_stays_one_colour_at_any_size(value: int, height: int, width: int) -> None:
    image = np.full((height, width, 3), value, dtype=np.uint8)
    assert (resize_photo(image, 32) == value).all()
