"""Noise, surface patterns, grounds and light for the rendered sample scenes.

Colours are BGR floats, 0 black to 1 white; a field is one number per pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Field = NDArray[np.float32]
Points = NDArray[np.float64]

SUPERSAMPLING = 2  # scenes are painted this much finer than the photo
SUBPIXEL_BITS = 4  # cv2 draws at 1/16 pixel when coordinates are scaled by 2**4


def base_colour(rng: Generator) -> Field:
    """One broad distribution for every class, so that colour does not name the class."""
    hue, saturation, value = rng.uniform(0, 360), rng.uniform(0.1, 0.75), rng.uniform(0.45, 0.95)
    pixel = np.array([[[hue, saturation, value]]], dtype=np.float32)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0], dtype=np.float32)


def noise(rng: Generator, side: int, cells: float, stretch: float = 1.0) -> Field:
    """Smooth noise of unit spread; stretch > 1 draws it out along y (grain, streaks)."""
    across = int(np.clip(cells, 2, side))
    down = int(np.clip(cells / stretch, 2, side))
    coarse = rng.standard_normal((down, across), dtype=np.float32)
    smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth, dtype=np.float32)


def fractal(rng: Generator, side: int, cells: float) -> Field:
    """Three octaves of noise: blotches with finer blotches on them."""
    octaves = [noise(rng, side, cells * 3**k) * np.float32(0.5**k) for k in range(3)]
    return np.asarray(np.sum(octaves, axis=0), dtype=np.float32)


def nearest_seed(seeds: Points, side: int) -> tuple[Field, NDArray[np.intp]]:
    """Distance (1 is the whole side) to the nearest seed, and which region each pixel is in."""
    empty = np.ones((side, side), dtype=np.uint8)
    column, row = np.clip((seeds * side).astype(int), 0, side - 1).T
    empty[row, column] = 0
    distance, region = cv2.distanceTransformWithLabels(
        empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    return np.asarray(distance / side, dtype=np.float32), np.asarray(region, dtype=np.intp)


def facets(rng: Generator, side: int, count: int) -> Field:
    """Flat tilted facets with sharp creases between them, as in crumpled sheet."""
    _, region = nearest_seed(rng.random((count, 2)), side)
    level, tilt_x, tilt_y = rng.standard_normal((3, count + 1)).astype(np.float32)
    x, y = unit_grid(side)
    return np.asarray(level[region] + 2 * (tilt_x[region] * x + tilt_y[region] * y) - 1)


def beads(rng: Generator, side: int, per_side: int) -> Field:
    """Packed round grains: 1 at the middle of a bead, falling to 0 in the gaps."""
    ticks = np.arange(per_side) + 0.5
    seeds = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    seeds = (seeds + rng.uniform(-0.3, 0.3, seeds.shape)) / per_side
    distance, _ = nearest_seed(seeds, side)
    return np.asarray(np.clip(1 - distance * per_side * 1.5, 0, 1))


def unit_grid(side: int) -> tuple[Field, Field]:
    """x and y of every pixel centre, 0 to 1."""
    ticks = ((np.arange(side) + 0.5) / side).astype(np.float32)
    return np.tile(ticks, (side, 1)), np.tile(ticks[:, None], (1, side))


def coverage(polygons: Sequence[Points], side: int) -> Field:
    """How far each pixel lies inside any of the polygons (pixel i spans i to i + 1)."""
    mask = np.zeros((side, side), dtype=np.uint8)
    for polygon in polygons:
        # One call each: filled together, overlaps of two parts would become holes.
        cv2.fillPoly(mask, [_fixed_point(polygon)], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    return np.asarray(mask / np.float32(255))


def strokes(lines: Sequence[Points], side: int, width: float) -> Field:
    """How far each pixel is covered by open lines; points and width in units of the side."""
    mask = np.zeros((side, side), dtype=np.uint8)
    fixed = [_fixed_point(line * side) for line in lines]
    thickness = max(1, round(width * side))
    cv2.polylines(mask, fixed, False, 255, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    return np.asarray(mask / np.float32(255))


def _fixed_point(polygon: Points) -> NDArray[np.int32]:
    # cv2 puts pixel centres at whole numbers, the annotations put pixel corners there.
    return np.asarray(np.round((polygon - 0.5) * 2**SUBPIXEL_BITS), dtype=np.int32)


class Surface:
    """Square piece of painted material: colour and opacity, in units of its own side."""

    def __init__(self, side: int, colour: Field, opacity: float = 1.0) -> None:
        self.side = side
        self.x, self.y = unit_grid(side)
        self.colour = np.tile(colour, (side, side, 1))
        self.opacity = np.full((side, side), opacity, dtype=np.float32)

    def shade(self, gain: Field) -> None:
        self.colour *= np.clip(gain, 0.1, 2)[..., None]

    def gloss(self, amount: Field, solid: bool = False) -> None:
        """Mix in white light; solid also makes the highlight opaque, as on glass."""
        self.paint(np.clip(amount, 0, 1), np.ones(3, dtype=np.float32), solid)

    def paint(self, amount: Field, colour: Field, solid: bool = False) -> None:
        self.colour += amount[..., None] * (colour - self.colour)
        if solid:
            self.opacity = np.maximum(self.opacity, amount)

    def fill(self, polygon: Sequence[tuple[float, float]] | Points, colour: Field) -> None:
        amount = coverage([np.asarray(polygon, dtype=float) * self.side], self.side)
        self.paint(amount, colour, solid=True)

    def round_off(self, half_width: float, depth: float) -> None:
        """Darken an upright cylinder about the middle towards both its sides."""
        off_axis = np.clip(np.abs(self.x - 0.5) / half_width, 0, 1)
        self.shade(1.1 - depth * off_axis**2)

    def line(self, lines: Sequence[Points], width: float, gain: float) -> None:
        self.shade(1 + strokes(lines, self.side, width) * np.float32(gain - 1))


def turned(profile: Sequence[tuple[float, float]], bulge: float = 0.0) -> Points:
    """Outline of an upright turned body: (y, half width) from top to bottom, rounded ends."""
    y, half = np.array(profile).T
    arc = np.linspace(-1, 1, 9)[1:-1]
    dome = np.sqrt(1 - arc**2) * bulge
    top = np.stack([0.5 + half[0] * arc, y[0] - dome], axis=1)
    bottom = np.stack([0.5 - half[-1] * arc, y[-1] + dome], axis=1)
    right = np.stack([0.5 + half, y], axis=1)
    left = np.stack([0.5 - half, y], axis=1)[::-1]
    return np.concatenate([top, right, bottom, left])


def ragged(rng: Generator, corners: Sequence[tuple[float, float]], spread: float) -> Points:
    """Corners joined by edges that wander by spread."""
    ends = np.array(corners)
    steps = np.linspace(0, 1, 5)[:-1, None]
    edges = [a + (b - a) * steps for a, b in zip(ends, np.roll(ends, -1, axis=0), strict=True)]
    outline = np.concatenate(edges)
    return outline + rng.uniform(-spread, spread, outline.shape)


def ring(rng: Generator, points: int, low: float, high: float) -> Points:
    """Closed outline about the middle whose radius jumps between low and high."""
    angle = (np.arange(points) + rng.uniform(-0.3, 0.3, points)) * 2 * np.pi / points
    radius = rng.uniform(low, high, points)
    return 0.5 + np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]


def ellipse(cx: float, cy: float, rx: float, ry: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], axis=1)


def rounded(outline: Points) -> Points:
    """Chaikin corner cutting, twice: soft curves from a coarse outline."""
    for _ in range(2):
        after = np.roll(outline, -1, axis=0)
        cut = np.stack([0.75 * outline + 0.25 * after, 0.25 * outline + 0.75 * after], axis=1)
        outline = cut.reshape(-1, 2)
    return outline


def bump(at: Field, centre: float, width: float) -> Field:
    return np.asarray(np.exp(-(((at - centre) / width) ** 2)), dtype=np.float32)


def _tinted(rng: Generator, side: int, bgr: tuple[float, float, float]) -> Field:
    colour = np.array(bgr) * rng.uniform(0.75, 1.25) + rng.normal(0, 0.02, 3)
    return np.tile(colour.astype(np.float32), (side, side, 1))


def _random_lines(rng: Generator, count: int, reach: float) -> list[Points]:
    starts = rng.random((count, 1, 2))
    return list(np.concatenate([starts, starts + rng.normal(0, reach, (count, 1, 2))], axis=1))


def _concrete(rng: Generator, side: int) -> Field:
    ground = _tinted(rng, side, (0.60, 0.62, 0.64))
    texture = 1 + 0.07 * fractal(rng, side, 5) + 0.04 * noise(rng, side, side / 2)
    crack = np.cumsum(rng.normal(0.02, 0.03, (40, 2)), axis=0) + rng.uniform(-0.2, 0.8, 2)
    return np.asarray(ground * (texture - 0.4 * strokes([crack], side, 0.004))[..., None])


def _grass(rng: Generator, side: int) -> Field:
    ground = _tinted(rng, side, (0.18, 0.36, 0.28)) * (1 + 0.15 * fractal(rng, side, 6))[..., None]
    for gain in (0.7, 0.85, 1.2, 1.4):
        blades = strokes(_random_lines(rng, 160, 0.045), side, 0.008)
        ground *= (1 + blades * (gain - 1))[..., None]
    return np.asarray(ground)


def _sand(rng: Generator, side: int) -> Field:
    x, y = unit_grid(side)
    angle, waves = rng.uniform(0, np.pi), rng.uniform(30, 70)
    ripple = np.sin(waves * (np.cos(angle) * x + np.sin(angle) * y) + 2 * noise(rng, side, 4))
    texture = 1 + 0.05 * ripple + 0.09 * noise(rng, side, side / 2)
    return np.asarray(_tinted(rng, side, (0.50, 0.62, 0.70)) * texture[..., None])


def _wood(rng: Generator, side: int) -> Field:
    planks = int(rng.integers(3, 7))
    x, _ = unit_grid(side)
    plank = np.minimum((x * planks).astype(int), planks - 1)
    seam = np.abs(x * planks - np.round(x * planks)) < 0.04
    texture = 1 + rng.normal(0, 0.1, planks).astype(np.float32)[plank] - 0.5 * seam
    texture = texture + 0.1 * noise(rng, side, 50, stretch=12)
    ground = np.asarray(_tinted(rng, side, (0.30, 0.42, 0.55)) * texture[..., None])
    return np.ascontiguousarray(np.rot90(ground)) if rng.random() < 0.5 else ground


def _asphalt(rng: Generator, side: int) -> Field:
    ground = _tinted(rng, side, (0.32, 0.31, 0.30))
    grains = np.clip(noise(rng, side, side / 3) - 1.2, 0, 1)
    texture = 1 + 0.08 * fractal(rng, side, 4) + 0.9 * grains
    return np.asarray(ground * texture[..., None])


GROUNDS: dict[str, Callable[[Generator, int], Field]] = {
    "concrete": _concrete,
    "grass": _grass,
    "sand": _sand,
    "wood": _wood,
    "asphalt": _asphalt,
}


def ground(rng: Generator, side: int) -> Field:
    """Bare ground of a random kind with some fallen leaves, which are not trash."""
    kind = list(GROUNDS)[int(rng.integers(len(GROUNDS)))]
    scene = GROUNDS[kind](rng, side).astype(np.float32)
    for _ in range(int(rng.integers(0, 6))):
        along, half_width = np.linspace(0, np.pi, 9), rng.uniform(0.3, 0.5)
        blade = np.stack([np.cos(along), half_width * np.sin(along) ** 1.5], axis=1)
        leaf = np.concatenate([blade, blade[::-1] * (1, -1)]) * rng.uniform(0.01, 0.035)
        turn = rng.uniform(0, 2 * np.pi)
        turned = leaf @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        colour = np.array([0.15, 0.35, 0.4]) * rng.uniform(0.5, 1.6)
        amount = coverage([(turned + rng.random(2)) * side], side)
        scene += amount[..., None] * (colour.astype(np.float32) - scene)
    return scene


def light(rng: Generator, side: int) -> Field:
    """Gain of the scene's light: brightness, a gradient, and in half the scenes a shadow."""
    x, y = unit_grid(side)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)
    gain = rng.uniform(0.75, 1.15) * (1 + rng.uniform(0, 0.5) * slope)
    if rng.random() < 0.5:
        edge = slope - rng.uniform(0, 0.4) + 0.05 * noise(rng, side, 4)
        gain = gain * (1 - 0.45 * np.clip(edge * 12, 0, 1))
    return np.asarray(gain, dtype=np.float32)


def random_view(rng: Generator, span: float, size: float) -> Points:
    """Homography of the unit square into the frame: turned, shifted, foreshortened, skewed."""
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    corners = (square - 0.5 + rng.uniform(-0.06, 0.06, (4, 2))) * span
    corners[:, int(rng.integers(2))] *= rng.uniform(0.8, 1)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    quad = corners @ turn + rng.uniform(0.1, 0.9, 2) * size
    view = cv2.getPerspectiveTransform(square.astype(np.float32), quad.astype(np.float32))
    return np.asarray(view, dtype=np.float64)


def clip_to_frame(polygon: Points, size: float) -> Points:
    """The part of a polygon inside the size x size frame (Sutherland-Hodgman), to 1/100 pixel."""
    for axis, sign, limit in ((0, 1, 0.0), (0, -1, -size), (1, 1, 0.0), (1, -1, -size)):
        kept: list[Points] = []
        for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            before, after = sign * start[axis] - limit, sign * end[axis] - limit
            if before >= 0:
                kept.append(start)
            if (before >= 0) != (after >= 0):
                kept.append(start + (end - start) * before / (before - after))
        polygon = np.array(kept).reshape(-1, 2)
    return np.asarray(np.round(np.clip(polygon, 0, size), 2))


@dataclass
class Layer:
    """A surface in the frame: where its square of side 1 goes, and the polygons it shows in."""

    surface: Surface
    to_frame: Points
    polygons: list[Points]


def photograph(rng: Generator, layers: Sequence[Layer], size: int) -> NDArray[np.uint8]:
    """A size x size BGR photo of random ground with the layers on it, the first lowest."""
    fine = size * SUPERSAMPLING
    scene = ground(rng, fine)
    for layer in layers:
        _lay(scene, layer, shadow=rng.uniform(0.2, 0.6), gain=rng.uniform(0.75, 1.2))
    scene *= light(rng, fine)[..., None]
    photo = np.asarray(cv2.resize(scene, (size, size), interpolation=cv2.INTER_AREA), dtype=float)
    photo += rng.normal(0, rng.uniform(0.005, 0.025), photo.shape)
    return np.asarray(np.round(np.clip(photo, 0, 1) * 255), dtype=np.uint8)


def _lay(scene: Field, layer: Layer, shadow: float, gain: float) -> None:
    fine, surface, polygons = len(scene), layer.surface, layer.polygons
    blur = 0.02 * fine
    corners = np.concatenate(polygons) * SUPERSAMPLING
    left, top = np.maximum(corners.min(axis=0) - 4 * blur, 0).astype(int)
    right, bottom = np.minimum(corners.max(axis=0) + 4 * blur, fine).astype(int)
    window = np.s_[top:bottom, left:right]  # the rest of the scene stays as it is
    inside, behind = (
        coverage([polygon * SUPERSAMPLING + shift for polygon in polygons], fine)[window]
        for shift in (0, blur)
    )
    cast = cv2.GaussianBlur(behind, (0, 0), blur)
    view = np.diag([SUPERSAMPLING, SUPERSAMPLING, 1.0]) @ layer.to_frame
    view = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]]) @ view
    view = view @ np.diag([1 / surface.side, 1 / surface.side, 1.0])
    colour, opacity = (
        cv2.warpPerspective(field, view, inside.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        for field in (surface.colour * np.float32(gain), surface.opacity)
    )
    scene[window] *= (1 - np.float32(shadow) * cast)[..., None]
    scene[window] += (inside * np.clip(opacity, 0, 1))[..., None] * (colour - scene[window])
