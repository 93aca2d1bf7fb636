"""The ladder's rows: with made-up measurements, and where there is no GPU."""

from pathlib import Path

import pytest
import torch

from bench import gpu_steps
from bench.comparison import table
from bench.gpu_ladder import PACKED, RECIPES, RUNGS, TOP, Measured, ladder, packed, run

GIB = 2**30


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it is measured, for minutes")
def test_without_a_gpu_every_row_says_that_it_is_not_measured() -> None:
    rows = run()
    assert len(rows) == len(RECIPES) * (len(RUNGS) + len(PACKED))
    assert all(row.ours is None and row.met is None for row in rows)
    assert table(rows).count("not measured") >= len(rows)
    assert {row.note for row in rows} == {"no GPU is at hand"}


def test_each_rung_is_a_ratio_to_the_bare_loop_and_the_last_has_the_bar() -> None:
    bare = Measured(speed=20.0, peak_bytes=GIB, micro_batch=7, first_loss=2.5)
    rungs = {
        name: Measured(20.0 * (1 + place), 3 * GIB, 7, 2.5) for place, name in enumerate(RUNGS)
    }
    rows = ladder("fpn_efficientnet_b4", bare, rungs)
    assert [row.ratio for row in rows] == [1, 2, 3, 4, 5]
    assert [row.met for row in rows] == [None, None, None, None, True]
    assert TOP in rows[-1].name
    assert rows[0].note.startswith("peak 3.0 GiB")


def test_trials_that_share_a_gpu_are_added_up_and_such_as_do_not_fit_are_not_measured() -> None:
    def trials(count: int, speed: float, micro_batch: int) -> list[Measured]:
        return [Measured(speed, 2 * GIB, micro_batch, 2.5)] * count

    together = {1: trials(1, 30.0, 7), 2: trials(2, 20.0, 7), 4: trials(4, 9.0, 4), 8: []}
    rows = packed("fpn_efficientnet_b4", together)
    assert [row.ours for row in rows] == [30.0, 40.0, 36.0, None]
    assert [row.ratio for row in rows][:3] == [1, 40 / 30, 36 / 30]
    assert "8.0 GiB in all, 4 photos at once each" in rows[2].note
    assert "do not fit" in rows[3].note


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_that_is_measured_is_random(recipe: str, sample: Path) -> None:
    settings = ("data.image_size=64", "precision=float32")

    def first_loss(seed: int) -> float:
        trainer = gpu_steps.make_trainer(sample, recipe, 1.0, settings)
        torch.manual_seed(seed)
        return float(gpu_steps.our_epoch(trainer)[0])

    assert first_loss(1) == pytest.approx(first_loss(2), rel=1e-4)
