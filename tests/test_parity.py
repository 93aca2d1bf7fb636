"""docs/parity.md says what is true: every flag of the team's is there, every key and option exists."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import typer

import launch
from search.config import SearchConfig, SearchSettings, load_search_config
from search.space import known_paths
from tests.conftest import ROOT
from trashseg.config import CrfConfig
from trashseg.models import check_encoder

# The flags of train.py (the baseline's and code/'s) and of inference.py, as argparse has them.
TRAIN_FLAGS = """
PROJECT_PATH BASE_DATA_PATH coco_train_json coco_val_json learning_rate batch_size valid_batch_size
nepochs resize_width resize_height patience seed num_workers model optimizer criterion scheduler
train_augmentation val_augmentation kfold print_freq description model_save_name
"""
INFERENCE_FLAGS = """
PROJECT_PATH BASE_DATA_PATH coco_test_json batch_size resize_width resize_height seed num_workers
model test_augmentation model_name
"""

TEXT = (ROOT / "docs" / "parity.md").read_text()
KEYS = (
    known_paths()
    | {f"search.{name}" for name in SearchSettings.model_fields}
    | {f"crf.{name}" for name in CrfConfig.model_fields}
)
COMMANDS: dict[str, Any] = getattr(typer.main.get_command(launch.app), "commands")  # noqa: B009


def rows() -> Iterator[tuple[str, list[str]]]:
    """Section and cells of each line of a table, without headings."""
    for section in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]:
        for line in section.splitlines():
            if line.startswith("|") and not line.startswith("|---"):
                cells = [cell.strip() for cell in line.strip("|").split("|")]
                if "here" not in cells:
                    yield section.splitlines()[0], cells


ROWS = list(rows())


def here(cells: list[str]) -> list[str]:
    """What stands in the column `here`: the last but one."""
    return re.findall(r"`([^`]+)`", cells[-2])


def flags(section: str) -> list[str]:
    return [cells[0].strip("`") for title, cells in ROWS if title == section]


def test_the_tables_have_every_flag_of_the_teams_scripts_once() -> None:
    assert flags("train.py, train_with_two.py") == TRAIN_FLAGS.split()
    assert flags("inference.py, ensemble_inference.py") == INFERENCE_FLAGS.split()


def test_every_row_says_what_it_is_here_or_that_there_is_none() -> None:
    assert len(ROWS) > 70
    for _, cells in ROWS:
        assert here(cells) or cells[-2] == "none", cells
        assert here(cells) or cells[-1], f"{cells[0]}: why not?"


@pytest.mark.parametrize("name", sorted({name for _, cells in ROWS for name in here(cells)}))
def test_every_key_and_option_exists(name: str) -> None:
    command, _, option = name.partition(" ")
    if option:
        options = [opt for parameter in COMMANDS[command].params for opt in parameter.opts]
        assert option in options
    else:
        assert name.partition("=")[0] in KEYS


@pytest.mark.parametrize(
    "cells", [cells for _, cells in ROWS if any("=" in name for name in here(cells))], ids=str
)
def test_the_values_of_a_row_make_a_configuration(cells: list[str]) -> None:
    config = load_search_config(None, [name for name in here(cells) if "=" in name])
    if any(name.startswith("model.encoder=") for name in here(cells)):
        encoder, weights = config.model.encoder, config.model.weights
        check_encoder(encoder)
        known = smp.encoders.encoders.get(encoder, {"pretrained_settings": ["imagenet"]})
        assert weights in known["pretrained_settings"]


def test_keys_in_the_text_exist_and_their_values_are_taken() -> None:
    text = "\n".join(line for line in TEXT.splitlines() if not line.startswith("|"))
    assignments = re.findall(r"`([a-z_.]+=[^`\s]+)`", text)
    assert len(assignments) >= 10
    for assignment in assignments:
        assert isinstance(load_search_config(None, [assignment]), SearchConfig)


def test_the_kernels_of_the_teams_crf_are_taken_as_they_stand_there() -> None:
    # POS_W 3, POS_XY_STD 1, Bi_W 4, Bi_XY_STD 67, Bi_RGB_STD 3, MAX_ITER 10 in code/utils.py
    assignments = re.findall(r"`(crf\.[a-z_]+=[^`]+)`", TEXT)
    assert load_search_config(None, assignments).crf == CrfConfig(
        gaussian_weight=3,
        gaussian_sxy=1,
        bilateral_weight=4,
        bilateral_sxy=67,
        bilateral_srgb=3,
        iterations=10,
    )
