"""The best, the worst and the most disputed photos: which, and their pictures for the page."""

import base64
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from search.run_folder import RunFolder
from trashseg.data.cache import dataset_key
from trashseg.data.coco import CocoDataset, rasterize, read_photo
from trashseg.disputed import PhotoScores, Vote, probability, read_mask, score_photo, votes_of
from trashseg.errors import TrashSegError
from trashseg.manifest import Kind, Manifest, read_manifest
from trashseg.pictures import overlay, palette

SHOWN = 4  # of each group
SIDE = 300  # of a picture, in pixels
QUALITY = 80
GROUPS = {
    "best": "The best",
    "worst": "The worst",
    "disputed": "The most disputed",
}

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class PhotoFacts:
    """One photo, out of fold."""

    file_name: str
    fold: int
    voters: int
    scores: PhotoScores


@dataclass(frozen=True)
class Gallery:
    """Every photo's scores, and those that are shown."""

    photos: tuple[PhotoFacts, ...]
    groups: dict[str, tuple[str, ...]]
    """File names by `GROUPS`, first the most so."""
    pictures: dict[str, dict[str, str]]
    """By file name and caption, as data URIs."""
    legend: tuple[tuple[str, str], ...]
    """Class and colour, of those that are to be seen."""


def read_gallery(run: RunFolder, on_photo: Callable[[], None] = lambda: None) -> Gallery:
    """TrashSegError where photos, masks or votes are no longer there, or are others than the run's."""
    dataset = run.dataset()
    if json.loads(run.dataset_json.read_text())["key"] != dataset_key(dataset):
        raise TrashSegError(f"{dataset.root}: holds other photos or polygons than the run's")
    manifest = read_manifest(run.ensemble)
    votes = votes_of(run.ensemble, manifest, dataset, run.folds(dataset))

    def facts_of(vote: Vote) -> PhotoFacts:
        chosen, other = (mask_folder(run, kind, manifest) for kind in kinds(manifest))
        scores = score_photo(vote, chosen, other, len(dataset.classes))
        on_photo()
        return PhotoFacts(vote.ballot.photo.file_name, vote.ballot.fold, len(vote.weights), scores)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # what takes time here lets others run
        photos = tuple(pool.map(facts_of, votes))
    groups = pick(photos)
    shown = {name for names in groups.values() for name in names}
    drawn = [vote for vote in votes if vote.ballot.photo.file_name in shown]
    pictures, seen = {}, set[int]()
    for vote in drawn:
        photo = vote.ballot.photo
        maps = class_maps(run, vote, manifest)
        seen |= {int(index) for mask in maps.values() for index in np.unique(mask)}
        pictures[photo.file_name] = draw(vote, maps, dataset)
    return Gallery(photos, groups, pictures, legend(dataset.classes, sorted(seen - {0})))


def pick(photos: Sequence[PhotoFacts]) -> dict[str, tuple[str, ...]]:
    """`SHOWN` of each, fewer where best and worst would be the same ones. Disputed are those whose
    voters disagree on most pixels; where each photo has but one, those that it is least sure of."""
    several = any(photo.voters > 1 for photo in photos)
    count = min(SHOWN, max(1, len(photos) // 2)) if photos else 0
    ranked = sorted(photos, key=lambda photo: (-photo.scores.iou, photo.file_name))
    doubtful = sorted(
        photos,
        key=lambda p: (-(p.scores.disagreement if several else p.scores.doubt), p.file_name),
    )
    chosen = {"best": ranked, "worst": ranked[::-1], "disputed": doubtful}
    return {
        group: tuple(photo.file_name for photo in members[:count])
        for group, members in chosen.items()
    }


def kinds(manifest: Manifest) -> tuple[Kind, Kind]:
    """What was chosen, and what was not."""
    if manifest.chosen == "soft_vote":
        return "soft_vote", "soft_vote_crf"
    return "soft_vote_crf", "soft_vote"


def mask_folder(run: RunFolder, kind: Kind, manifest: Manifest) -> Path:
    return run.ensemble / ("masks" if kind == manifest.chosen else f"masks_{kind}")


# --- pictures ----------------------------------------------------------------------------------


def class_maps(run: RunFolder, vote: Vote, manifest: Manifest) -> dict[str, Image]:
    """(H, W) by caption."""
    photo = vote.ballot.photo
    return {
        "truth": rasterize(photo),
        "before the CRF": read_mask(mask_folder(run, "soft_vote", manifest), photo),
        "after the CRF": read_mask(mask_folder(run, "soft_vote_crf", manifest), photo),
    }


def draw(vote: Vote, maps: dict[str, Image], dataset: CocoDataset) -> dict[str, str]:
    """Five pictures by caption."""
    image = read_photo(vote.ballot.photo.path)
    small = shrunk(image, cv2.INTER_AREA)
    size = (small.shape[1], small.shape[0])
    pictures = {"photo": small}
    for caption, mask in maps.items():
        fitted = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
        pictures[caption] = overlay(small, np.asarray(fitted, np.uint8), len(dataset.classes))
    pictures["how sure the vote is"] = heat(
        np.asarray(cv2.resize(probability(vote), size), np.float32)
    )
    return {caption: data_uri(picture) for caption, picture in pictures.items()}


def shrunk(image: Image, interpolation: int) -> Image:
    """Its longer side `SIDE`."""
    scale = SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), dtype=np.uint8)


def heat(values: NDArray[np.float32]) -> Image:
    """0 to 1 as dark blue to yellow, which colour-blind people read too."""
    scaled = np.clip(values * 255, 0, 255).astype(np.uint8)
    coloured = cv2.applyColorMap(scaled, cv2.COLORMAP_CIVIDIS)
    return np.asarray(cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def data_uri(image: Image) -> str:
    """(H, W, 3) RGB as a JPEG."""
    ordered = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", ordered, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def legend(classes: Sequence[str], seen: Sequence[int]) -> tuple[tuple[str, str], ...]:
    colours = palette(len(classes)).tolist()
    return tuple((classes[index], f"rgb({','.join(map(str, colours[index]))})") for index in seen)
