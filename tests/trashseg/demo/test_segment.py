"""What is found in a photo: predict's masks, shares that can be counted, the threshold."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from tests.trashseg.demo.uploads import photo
from trashseg.data.coco import read_photo
from trashseg.demo.photos import decode_upload
from trashseg.demo.segment import Segmenter, Settings
from trashseg.device import local_resources
from trashseg.ensemble import load_ensemble
from trashseg.predict import predict


def _vote(*columns: dict[int, float]) -> NDArray[np.float16]:
    """(12, 2, columns): in each column the probabilities of some classes; the rest goes to class 11."""
    vote = np.zeros((12, 2, len(columns)), dtype=np.float16)
    for column, probabilities in enumerate(columns):
        for value, probability in probabilities.items():
            vote[value, :, column] = probability
        vote[11, :, column] += 1 - sum(probabilities.values())
    return vote


# paper surely, plastic hardly, background hardly, plastic surely
VOTE = _vote({3: 0.9}, {6: 0.4, 3: 0.3}, {0: 0.4, 3: 0.3}, {6: 0.8})
BLACK = np.zeros((2, 4, 3), dtype=np.uint8)


def test_shares_are_of_the_pixels_of_objects_and_of_all(segmenter: Segmenter) -> None:
    segmented = segmenter.decide(BLACK, VOTE, Settings())
    assert segmented.mask.tolist() == [[3, 6, 0, 6]] * 2
    # 4 of 6 pixels of objects, and of 8 of all, are plastic
    assert [(s.value, s.pixels) for s in segmented.shares()] == [(6, 4), (3, 2)]
    assert [s.of_objects for s in segmented.shares()] == [
        pytest.approx(4 / 6),
        pytest.approx(2 / 6),
    ]
    assert [s.of_photo for s in segmented.shares()] == [0.5, 0.25]
    assert segmented.unsure == 0
    assert segmented.masks.confidence[[3, 6]] == pytest.approx([0.9, 0.6], abs=1e-3)


def test_a_threshold_makes_pixels_below_it_background_and_counts_them(segmenter: Segmenter) -> None:
    segmented = segmenter.decide(BLACK, VOTE, Settings(threshold=0.5))
    assert segmented.mask.tolist() == [[3, 0, 0, 6]] * 2
    assert segmented.unsure == 2  # background of which the model is not sure was background before
    assert segmented.masks.confidence[[0, 3, 6]] == pytest.approx([0.4, 0.9, 0.8], abs=1e-3)


def test_nothing_is_found_above_a_threshold_of_one(segmenter: Segmenter) -> None:
    segmented = segmenter.decide(BLACK, VOTE, Settings(threshold=1))
    assert segmented.shares() == []
    assert segmented.unsure == 6
    assert segmenter.coco(segmented, "a.jpg") == []


def test_coco_results_decode_to_the_mask(segmenter: Segmenter) -> None:
    segmented = segmenter.segment(decode_upload(photo()), Settings())
    results = segmenter.coco(segmented, "a.jpg")
    decoded = np.zeros((60, 90), dtype=np.uint8)
    for entry in results:
        assert (entry["image_id"], entry["file_name"]) == (0, "a.jpg")
        decoded[coco_mask.decode(entry["segmentation"]) == 1] = entry["category_id"] + 1
    np.testing.assert_array_equal(decoded, segmented.mask)
    assert len(results) >= 2


def test_the_crf_follows_the_ensembles_choice_unless_it_is_asked_for(segmenter: Segmenter) -> None:
    image = decode_upload(photo(48, 32))
    plain, refined = (segmenter.segment(image, Settings(crf=crf)) for crf in (False, True))
    chosen = segmenter.segment(image, Settings())
    assert segmenter.refines is False  # a single fold knows no CRF
    assert chosen.settings == Settings(crf=False)
    np.testing.assert_array_equal(chosen.mask, plain.mask)
    assert refined.settings.crf is True
    assert (refined.masks.confidence.max() > plain.masks.confidence.max()).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(90, 60), (64, 64), (1100, 300)])
def test_the_mask_is_the_one_that_predict_writes(
    size: tuple[int, int], untrained: Path, tmp_path: Path
) -> None:
    """Of the photo alone: in a batch with others the network's sums are rounded in another order, and
    a pixel at which two classes are equally likely may go to the other one."""
    sent = tmp_path / "photos" / "a.jpg"
    sent.parent.mkdir()
    sent.write_bytes(photo(*size))
    ensemble = load_ensemble(untrained, local_resources())
    predict(ensemble, sent.parent, tmp_path / "out")
    segmented = Segmenter(ensemble).segment(decode_upload(sent.read_bytes()), Settings())
    mask = cv2.imread(str(tmp_path / "out" / "masks" / "a.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(segmented.mask, mask)
    np.testing.assert_array_equal(segmented.image, read_photo(sent))
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert written == Segmenter(ensemble).coco(segmented, "a.jpg")
