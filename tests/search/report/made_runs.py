"""Runs whose files are written by hand: nothing is trained."""

import json
from collections.abc import Sequence
from pathlib import Path

from search.config import SearchConfig
from search.ledger import Ledger, State
from search.run_folder import RunFolder, new_run_folder
from search.rungs import rung_epochs
from search.space import load_space
from trashseg.data.coco import load_coco
from trashseg.data.folds import stratify
from trashseg.files import write_json

SPACE = """
loss.name: {choice: [cross_entropy, dice]}
loss.label_smoothing: {float: [0.0, 0.1], when: {loss.name: [cross_entropy]}}
augment.vertical_flip.p: {float: [0.0, 0.5]}
optim.decoder_lr: {float: [1.0e-4, 1.0e-2], log: true}
"""
Made = tuple[State | None, int, float]  # how a trial ended, None if it has not; epochs; best score


def make_run(
    folder: Path, data: Path, trials: Sequence[Made], planned: int = 0, epochs: int = 9
) -> RunFolder:
    """Trials of `epochs` with rungs at 3, 9, ...; after epoch e of n a trial has e / n of its score."""
    folder.mkdir(exist_ok=True)
    (folder / "space.yaml").write_text(SPACE)
    settings = {
        "name": "night", "storage": str(folder / "runs"), "data_dir": str(data),
        "space": str(folder / "space.yaml"), "trials": planned or max(1, len(trials)),
        "grace_period": 3, "reduction_factor": 3, "tracking_uri": f"sqlite:///{folder}/mlflow.db",
    }  # fmt: skip
    config = SearchConfig.model_validate({"epochs": epochs, "search": settings})
    run, dataset, space = (
        new_run_folder(config),
        load_coco(data),
        load_space(str(folder / "space.yaml")),
    )
    run.create(config, space, dataset, stratify(dataset, 5, 0))
    ledger = Ledger(run.study_db, config, space)
    arrived = dict.fromkeys(rung_epochs(config), 0)
    for state, trained, best in trials:
        name = ledger.propose()
        for epoch in range(1, trained + 1):
            ledger.record_epoch(name, epoch, best * epoch / trained)
            if epoch in arrived:
                ledger.record_arrival(name, epoch, before=arrived[epoch])
                arrived[epoch] += 1
        scores = {"epoch": trained, "best_miou": best, "best_miou_image": best / 2}
        if state == "failed":
            ledger.end(name, state, {"error": "NonFiniteError: </script><b>inf</b>"})
        elif state is not None:
            ledger.end(name, state, scores)
    return run


def train_fold(run: RunFolder, name: str, fold: int, miou: float | None, epochs: int = 2) -> None:
    """What a fold leaves, of 3 seconds an epoch; still under way where it has no score."""
    folder = run.path / "folds" / name / str(fold)
    folder.mkdir(parents=True)
    lines = [json.dumps({"epoch": epoch + 1, "seconds": 3.0}) + "\n" for epoch in range(epochs)]
    (folder / "history.jsonl").write_text("".join(lines))
    if miou is not None:
        iou = {"Background": 0.9, "Paper": miou}
        write_json(
            folder / "metrics.json",
            {"miou": miou, "miou_image": miou / 2, "pixel_accuracy": 0.9, "iou": iou, "images": 4},
        )
