"""A model card says what the run's files say, and what follows from it."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.model_card import shortened, write_model_card
from search.run_folder import RunFolder
from tests.search.written_runs import metrics_of, scores, set_metrics, write_run
from trashseg.config_file import read_yaml, write_yaml
from trashseg.data.coco import CocoDataset, load_coco

NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\w)")


@pytest.fixture
def dataset(sample: Path) -> CocoDataset:
    return load_coco(sample)


@pytest.fixture
def run(sample: Path, tmp_path: Path) -> RunFolder:
    return write_run(sample, tmp_path, "sqlite:///none.db")


def card_of(run: RunFolder) -> str:
    write_model_card(run, run.dataset())
    return run.model_card.read_text()


def rows(card: str, heading: str) -> dict[str, list[str]]:
    """{first cell: the others} of the first table after `heading`."""
    lines = card[card.index(heading) :].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return {first: rest for first, *rest in table}


def leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(value)
    else:
        yield tree


# --- the numbers -------------------------------------------------------------------------------


def test_every_number_of_the_card_is_in_the_files_or_counted_in_them(
    run: RunFolder, dataset: CocoDataset
) -> None:
    set_metrics(
        run, test={"soft_vote": scores(dataset, 0.21), "soft_vote_crf": scores(dataset, 0.22)}
    )
    card = card_of(run)
    trees = [read_yaml(run.ensemble / "manifest.yaml"), read_yaml(run.search_yaml)]
    trees += [read_yaml(file) for file in run.path.glob("folds/*/*/config.yaml")]
    trees.append(json.loads((run.ensemble / "metrics.json").read_text()))
    numbers = [leaf for leaf in leaves(trees) if isinstance(leaf, int | float)]
    known = {f"{number:.4f}" for number in numbers} | {str(number) for number in numbers}
    objects = [a.class_index for photo in dataset.photos for a in photo.annotations]
    shown = [
        index for photo in dataset.photos for index in {a.class_index for a in photo.annotations}
    ]
    counted = {
        *Counter(objects).values(),
        *Counter(shown).values(),
        0,
        len(objects),
        len(dataset.photos),
    }
    counted |= {len(dataset.classes), len(dataset.classes) - 1, 4}  # networks
    counted |= {len(names) for names in json.loads(run.folds_json.read_text())["folds"]}
    limits = {"20", "0.3"}  # what the card calls few and low
    assert len(NUMBER.findall(card)) > 100
    assert set(NUMBER.findall(card)) <= known | set(map(str, counted)) | limits


def test_the_scores_stand_in_their_rows(run: RunFolder, dataset: CocoDataset) -> None:
    tested = scores(dataset, 0.22)
    set_metrics(run, test={"soft_vote": scores(dataset, 0.21), "soft_vote_crf": tested})
    card = card_of(run)
    table = rows(card, "## Scores")
    assert table == {
        "out of fold, without the CRF": ["0.3111", "0.3212", "0.8114", "20"],
        "out of fold, with the CRF (chosen)": ["0.3555", "0.3656", "0.8558", "20"],
        "out of fold, nested": ["0.2500", "0.2601", "0.7503", "20"],
        "test, without the CRF": ["0.2100", "0.2201", "0.7103", "20"],
        "test, with the CRF (chosen)": ["0.2200", "0.2301", "0.7203", "20"],
    }
    by_class = rows(card, "IoU by class")
    assert list(by_class) == list(dataset.classes)
    assert by_class["Background"] == ["-", "-", "0.2500", "0.3111", "0.3555", "0.2200"]
    second = dataset.classes[2]
    with_it = [[a.class_index for a in photo.annotations].count(2) for photo in dataset.photos]
    # 0.25 + 2 / 97 and so on
    assert by_class[second] == [
        str(sum(count > 0 for count in with_it)), str(sum(with_it)),
        "0.2706", "0.3317", "0.3761", "0.2406",
    ]  # fmt: skip
    assert "The score of the test folder is free of that." in card


def test_members_and_steps_are_those_of_the_manifest_and_of_the_report(run: RunFolder) -> None:
    card = card_of(run)
    model = "fpn on timm-tf_efficientnet_lite0"
    assert rows(card, "## Networks") == {
        "trial_000": [model, "32", "cross_entropy", "0, 1", "0", "0.3125", "3, 2", "0.2999"],
        "trial_001": [model, "64", "cross_entropy", "0, 1", "0", "0.1875", "1, 3", "0.2888"],
    }
    steps = rows(card, "Each step was kept")
    assert steps == {"crf": ["0.3111", "0.3555", "0.0444", "0.0123", "yes"]}
    assert (
        "in the views `identity` and `horizontal_flip`, at scale 1.0. A dense CRF refines" in card
    )


def test_what_is_decided_by_object_is_told(run: RunFolder) -> None:
    file = run.ensemble / "manifest.yaml"
    write_yaml(file, {**read_yaml(file), "by_object": True})
    assert "at scale 1.0. Litter that touches is one object, of one class:" in card_of(run)


def test_weights_by_class_and_trials_without_a_vote_are_told(run: RunFolder) -> None:
    file = run.ensemble / "manifest.yaml"
    tree = read_yaml(file)
    tree["members"] = tree["members"][:2]
    for member in tree["members"]:
        member["weight"] = [0.5, 1.25] + [0.5] * 9 + [3.0]
    write_yaml(file, {**tree, "chosen": "soft_vote"})
    card = card_of(run)
    table = rows(card, "## Networks")
    assert table["trial_000"][5] == "0.5000 to 3.0000, by class"
    assert table["trial_001"][5] == "has no vote"
    assert "No CRF refines the mean: it did not help." in card
    first, last = run.dataset().classes[1], run.dataset().classes[-1]
    assert f"rare classes count more: {first} 2.50 times and {last} 6.00 times." in card


# --- what follows from them --------------------------------------------------------------------


def test_limits_are_those_that_the_scores_show(run: RunFolder, dataset: CocoDataset) -> None:
    metrics = metrics_of(dataset, 0.25)
    iou = dict.fromkeys(dataset.classes, 0.5)
    iou |= {"Glass": 0.0, "Battery": None, "Metal": 0.2999, "Paper": 0.3}
    set_metrics(run, nested={**metrics["nested"], "iou": iou})
    card = card_of(run)
    assert "- No photo shows Battery: nothing is known of how these are found.\n" in card
    assert "- Never found where they are: Glass (IoU 0).\n" in card
    assert "- Found badly, with an IoU below 0.3: Metal 0.2999.\n" in card
    assert "sees it as a square of 32 and 64 pixels a side" in card
    assert "There is no test folder, whose score would be free of that." in card


def test_classes_with_few_objects_are_named_with_their_number(
    run: RunFolder, dataset: CocoDataset
) -> None:
    card = card_of(run)
    counts = Counter(a.class_index for photo in dataset.photos for a in photo.annotations)
    [line] = [line for line in card.splitlines() if line.startswith("- Seldom seen")]
    for index, name in enumerate(dataset.classes[1:], start=1):
        assert (f"{name} {counts[index]}" in line) == (0 < counts[index] < 20)


def test_a_class_that_is_found_well_is_no_limit(run: RunFolder, dataset: CocoDataset) -> None:
    metrics = metrics_of(dataset, 0.25)
    set_metrics(run, nested={**metrics["nested"], "iou": dict.fromkeys(dataset.classes, 0.9)})
    card = card_of(run)
    for beginning in ("- No photo shows", "- Never found", "- Found badly"):
        assert beginning not in card


def test_how_to_load_it_names_the_model_or_none(sample: Path, tmp_path: Path) -> None:
    other = write_run(sample, tmp_path, "sqlite:///none.db", changes={"registered_model": "sorter"})
    assert 'load_model("models:/sorter/VERSION")' in card_of(other)
    off = write_run(
        sample, tmp_path, "sqlite:///none.db", "off", changes={"registered_model": None}
    )
    card = card_of(off)
    assert "--model runs/off/ensemble" in card
    assert "models:/" not in card


def test_a_long_card_is_cut_between_lines_and_says_where_the_rest_is() -> None:
    card = "\n".join(f"line {number}" for number in range(100))
    short = shortened(card, longest=100)
    assert len(short) <= 100
    *lines, empty, rest = short.splitlines()
    assert lines == [f"line {number}" for number in range(len(lines))]
    assert (empty, rest) == ("", "The rest is in model_card.md of the ensemble's run.")
    assert shortened(card, longest=len(card)) == card
