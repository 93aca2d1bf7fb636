"""How the built-in sample draws an object of each class: its outline and its surface.

Shape and surface name the class; colour does not, as every class draws from one palette.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from trashseg.data import textures as tex
from trashseg.data.textures import Points, Surface


@dataclass
class Item:
    """One object before placing: its parts and surface fill a square of side 1."""

    parts: list[Points]
    surface: Surface


def _unknown(rng: Generator, side: int) -> Item:
    """A jagged star, half spotted and half striped: nothing one could name."""
    surface = Surface(side, tex.base_colour(rng))
    spots = (np.sin(surface.x * 34) * np.sin(surface.y * 34) > 0.25).astype(np.float32)
    stripes = (np.sin((surface.x + surface.y) * 40) > 0).astype(np.float32)
    split = surface.x + 0.2 * tex.noise(rng, side, 3) > 0.5
    surface.paint(np.where(split, spots, stripes).astype(np.float32), tex.base_colour(rng))
    star = tex.ring(rng, 14, 0.18, 0.26)
    star[::2] = 0.5 + (star[::2] - 0.5) * rng.uniform(1.4, 2.0, (7, 1))
    return Item([star], surface)


def _general_trash(rng: Generator, side: int) -> Item:
    """A loose pile of creased shards of several materials."""
    surface = Surface(side, tex.base_colour(rng))
    parts = []
    for _ in range(int(rng.integers(5, 8))):
        shard = (tex.ring(rng, int(rng.integers(3, 6)), 0.2, 0.5) - 0.5) * rng.uniform(0.4, 0.7)
        parts.append(shard + 0.5 + rng.normal(0, 0.16, 2))
        surface.line([np.concatenate([parts[-1], parts[-1][:1]])], 0.03, 0.4)
        surface.fill(parts[-1], tex.base_colour(rng))
    surface.shade(1 + 0.12 * tex.facets(rng, side, 24) + 0.12 * tex.noise(rng, side, 40))
    return Item(parts, surface)


def _paper(rng: Generator, side: int) -> Item:
    """A flat sheet with rows of text and a few folds."""
    surface = Surface(side, tex.base_colour(rng))
    rows = np.arange(0.2, 0.85, rng.uniform(0.07, 0.1))
    ends = rng.uniform(0.55, 0.85, len(rows))
    text = [np.array([[0.18, y], [end, y]]) for y, end in zip(rows, ends, strict=True)]
    surface.line(text, 0.02, rng.uniform(0.3, 0.7))
    surface.shade(1 + 0.1 * tex.facets(rng, side, 10))
    corners = [(0.08, 0.06), (0.92, 0.06), (0.92, 0.94), (0.08, 0.94)]
    moved = [(x + rng.uniform(-0.06, 0.06), y + rng.uniform(-0.06, 0.06)) for x, y in corners]
    return Item([tex.ragged(rng, moved, 0.012)], surface)


def _paper_pack(rng: Generator, side: int) -> Item:
    """A gable-top carton seen from a corner: bright front, dark side, slanted roof."""
    edge = rng.uniform(0.5, 0.58)
    surface = Surface(side, tex.base_colour(rng))
    surface.fill([(0.2, 0.62), (edge, 0.66), (edge, 0.84), (0.2, 0.8)], tex.base_colour(rng))
    surface.fill(tex.ellipse(0.5 * (0.2 + edge), 0.47, 0.1, 0.08), tex.base_colour(rng))
    surface.shade(np.where(surface.x > edge, np.float32(0.55), np.float32(1.1)))
    roof = surface.y < 0.32
    surface.shade(np.where(roof, np.float32(1.25), np.float32(1)))
    folds = [[(0.2, 0.32), (edge, 0.35), (0.8, 0.3)], [(edge, 0.35), (0.68, 0.12)]]
    surface.line([np.array(fold) for fold in folds], 0.02, 0.45)
    body = [(0.32, 0.03), (0.7, 0.03), (0.7, 0.12), (0.8, 0.3), (0.8, 0.9)]
    return Item([np.array([*body, (edge, 0.97), (0.2, 0.92), (0.2, 0.32), (0.32, 0.12)])], surface)


def _metal(rng: Generator, side: int) -> Item:
    """A drink can: hard light streaks along it and a bright rimmed lid."""
    half = rng.uniform(0.24, 0.29)
    colour = tex.base_colour(rng)
    surface = Surface(side, colour)
    bare = ((surface.y < 0.2) | (surface.y > 0.87)).astype(np.float32)
    surface.paint(bare * 0.6, np.full(3, colour.mean(), dtype=np.float32))
    surface.round_off(half, 0.75)
    for centre in rng.uniform(0.5 - half * 0.8, 0.5 + half * 0.8, 3):
        surface.gloss(0.8 * tex.bump(surface.x, centre, rng.uniform(0.015, 0.04)))
        surface.shade(1 - 0.5 * tex.bump(surface.x, centre + 0.07, 0.025))
    lid = colour * 0.4 + 0.45
    surface.fill(tex.ellipse(0.5, 0.12, half * 0.86, 0.085), np.ones(3, dtype=np.float32))
    surface.fill(tex.ellipse(0.5, 0.125, half * 0.72, 0.065), lid)
    surface.fill(tex.ellipse(0.5, 0.14, half * 0.25, 0.025), lid * np.float32(0.4))
    profile = [(0.11, half * 0.88), (0.2, half), (0.86, half), (0.92, half * 0.85)]
    return Item([tex.turned(profile, bulge=0.08)], surface)


def _glass(rng: Generator, side: int) -> Item:
    """A long-necked bottle: the ground shows through, edges dark, thin hard highlights."""
    half = rng.uniform(0.17, 0.21)
    y = np.linspace(0.04, 0.95, 26)
    shoulder = 1 / (1 + np.exp(-(y - 0.42) * 28))
    width = 0.065 + (half - 0.065) * shoulder + 0.02 * (y < 0.09)
    surface = Surface(side, tex.base_colour(rng) * np.float32(0.8), opacity=0.3)
    wall = np.interp(surface.y[:, 0], y, width).astype(np.float32)[:, None]
    off_axis = np.abs(surface.x - 0.5) / wall
    rim = np.clip((off_axis - 0.6) * 2.5, 0, 1)
    surface.shade(1 - 0.55 * rim)
    surface.opacity += 0.55 * rim
    for centre, breadth in ((-0.45, 0.1), (0.4, 0.05)):
        streak = tex.bump((surface.x - 0.5) / wall, centre, breadth)
        surface.gloss(0.95 * streak * (np.sin(surface.y * 9) > -0.4), solid=True)
    return Item([tex.turned(list(zip(y, width, strict=True)))], surface)


def _plastic(rng: Generator, side: int) -> Item:
    """A ribbed bottle with a label and a screw cap."""
    half = rng.uniform(0.2, 0.25)
    y = np.linspace(0.22, 0.95, 40)
    ribs = 0.014 * np.sin(y * 75) * ((y > 0.66) | (y < 0.42))
    width = half * np.clip((y - 0.14) * 6, 0.45, 1) + ribs
    surface = Surface(side, tex.base_colour(rng), opacity=0.85)
    furrows = np.where((surface.y > 0.66) | (surface.y < 0.42), np.float32(0.3), np.float32(0))
    surface.shade(1 + furrows * np.sin(surface.y * 75))
    label = tex.base_colour(rng)
    surface.fill([(0, 0.43), (1, 0.43), (1, 0.65), (0, 0.65)], label)
    surface.fill([(0, 0.51), (1, 0.51), (1, 0.56), (0, 0.56)], 1 - label)
    surface.fill([(0, 0), (1, 0), (1, 0.17), (0, 0.17)], tex.base_colour(rng))
    surface.round_off(half, 0.45)
    surface.gloss(0.4 * tex.bump(surface.x, 0.5 - half * 0.4, 0.06))
    cap = [(0.05, 0.1), (0.17, 0.1), (0.171, 0.08), (0.22, 0.08)]
    return Item([tex.turned([*cap, *zip(y, width, strict=True)])], surface)


def _styrofoam(rng: Generator, side: int) -> Item:
    """A broken moulded block: stepped outline, packed beads, a shaded lower face."""
    surface = Surface(side, tex.base_colour(rng))
    surface.shade(0.55 + 0.6 * tex.beads(rng, side, int(rng.integers(12, 16))))
    step_x, step_y = rng.uniform(0.4, 0.65), rng.uniform(0.3, 0.5)
    surface.shade(np.where(surface.y > 0.72, np.float32(0.7), np.float32(1.05)))
    block = [(0.06, 0.12), (step_x, 0.12), (step_x, step_y), (0.94, step_y)]
    return Item([tex.ragged(rng, [*block, (0.94, 0.88), (0.06, 0.88)], 0.02)], surface)


def _plastic_bag(rng: Generator, side: int) -> Item:
    """A limp carrier bag: two handle ears, thin film, wrinkles running from the ears."""
    surface = Surface(side, tex.base_colour(rng), opacity=0.68)
    angle = np.arctan2(surface.y - 0.2, surface.x - 0.5) + 0.15 * tex.noise(rng, side, 5)
    folds = np.sin(angle * rng.uniform(16, 24)) + 0.5 * tex.noise(rng, side, 8)
    surface.shade(1 + 0.25 * folds)
    surface.gloss(np.clip(folds - 0.8, 0, 1) * 0.7, solid=True)
    ears = [(0.12, 0.0), (0.34, 0.0), (0.37, 0.26), (0.63, 0.26), (0.66, 0.0), (0.88, 0.0)]
    sack = [(0.88, 0.35), (0.98, 0.65), (0.85, 0.95), (0.5, 0.98), (0.15, 0.95), (0.02, 0.65)]
    corners = np.array([*ears, *sack, (0.12, 0.35)])
    loose = corners + rng.uniform(-0.04, 0.04, corners.shape)
    return Item([tex.rounded(loose)], surface)


def _battery(rng: Generator, side: int) -> Item:
    """A slim cell: two-colour jacket, one smooth highlight, a terminal nub."""
    half = rng.uniform(0.13, 0.17)
    surface = Surface(side, tex.base_colour(rng))
    surface.fill([(0, 0), (1, 0), (1, 0.38), (0, 0.38)], tex.base_colour(rng))
    surface.line([np.array([[0.0, 0.4], [1.0, 0.4]])], 0.03, 0.2)
    cap = np.full(3, 0.75, dtype=np.float32)
    surface.fill([(0, 0), (1, 0), (1, 0.13), (0, 0.13)], cap)
    surface.round_off(half, 0.8)
    surface.gloss(0.6 * tex.bump(surface.x, 0.5 - half * 0.35, 0.035))
    nub = [(0.03, half * 0.35), (0.1, half * 0.35), (0.101, half), (0.95, half)]
    return Item([tex.turned(nub, bulge=0.02)], surface)


def _clothing(rng: Generator, side: int) -> Item:
    """A T-shirt: woven threads, soft folds, a dark collar."""
    surface = Surface(side, tex.base_colour(rng))
    threads = rng.uniform(95, 125)
    surface.shade(1 + 0.22 * np.sin(surface.x * threads) * np.sin(surface.y * threads))
    surface.shade(1 + 0.16 * tex.noise(rng, side, 5, stretch=2))
    collar = np.array([[0.36, 0.1], [0.43, 0.19], [0.5, 0.21], [0.57, 0.19], [0.64, 0.1]])
    surface.line([collar], 0.05, 0.5)
    shirt = [(0.36, 0.07), (0.43, 0.15), (0.5, 0.17), (0.57, 0.15), (0.64, 0.07), (0.8, 0.12)]
    sleeve = [(0.98, 0.38), (0.84, 0.46), (0.75, 0.36), (0.77, 0.94)]
    left = [(1 - x, y) for x, y in [(0.8, 0.12), *sleeve]][::-1]
    outline = np.array([*shirt, *sleeve, *left])
    return Item([outline + rng.uniform(-0.02, 0.02, outline.shape)], surface)


@dataclass(frozen=True)
class Kind:
    """How a class is drawn, how often it comes beyond its promised images, and its extent."""

    draw: Callable[[Generator, int], Item]
    share: float
    span: tuple[float, float]  # of the frame's side


# The order gives the category ids.
KINDS: dict[str, Kind] = {
    "UNKNOWN": Kind(_unknown, 0.03, (0.25, 0.55)),
    "General trash": Kind(_general_trash, 0.16, (0.3, 0.62)),
    "Paper": Kind(_paper, 0.20, (0.25, 0.55)),
    "Paper pack": Kind(_paper_pack, 0.02, (0.3, 0.6)),
    "Metal": Kind(_metal, 0.06, (0.27, 0.55)),
    "Glass": Kind(_glass, 0.05, (0.35, 0.65)),
    "Plastic": Kind(_plastic, 0.24, (0.3, 0.62)),
    "Styrofoam": Kind(_styrofoam, 0.02, (0.27, 0.55)),
    "Plastic bag": Kind(_plastic_bag, 0.20, (0.25, 0.6)),
    "Battery": Kind(_battery, 0.01, (0.18, 0.38)),
    "Clothing": Kind(_clothing, 0.01, (0.3, 0.6)),
}
