"""Training in rounds: a network labels photos, the next one is trained on those too, from scratch.

OUT/rounds/0/            a member trained on labelled photos alone, with the weights of its last epoch
OUT/rounds/K/            the same, trained with the labels that round K - 1 gave
OUT/                     the member of the last round, as trashseg/member.py has it
.../pseudo/photos.json   which photos a round got and how sure the network before it was of each

The teacher of a photo never sees the photo's truth, nor that of any validation photo of its fold. It is
trained on the other folds; photos that show the same picture as one of those are left out; and its
weights are those after all `epochs`: the best epoch, and an early stop, would be chosen by the truth of
the validation photos.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from trashseg.config import TrainConfig, fingerprint
from trashseg.config_pseudo import NoPseudoConfig
from trashseg.data.cache import dataset_key
from trashseg.data.coco import CocoDataset
from trashseg.data.folds import Folds, read_folds
from trashseg.data.pseudo_labels import (
    PseudoLabels,
    drop_pseudo_labels,
    open_pseudo_labels,
    write_pseudo_labels,
)
from trashseg.data.unlabelled import Pool, open_images, open_pool
from trashseg.device import Resources
from trashseg.errors import CheckpointError
from trashseg.member import (
    LAST,
    Member,
    batched,
    load_member,
    member_scores,
    probabilities,
    read_metadata,
    train_member,
)
from trashseg.metrics import Scores
from trashseg.train import Metrics

OnEpoch = Callable[[Metrics], None]


def train_in_rounds(
    config: TrainConfig,
    dataset: CocoDataset,
    folds: Folds,
    fold: int,
    out: Path,
    resources: Resources,
    on_epoch: OnEpoch = lambda metrics: None,
) -> Scores:
    """`train_member`, after the rounds that `config.pseudo` asks for; what is there is not done again.

    `on_epoch` hears of the epochs of every round, with its number as `round`. Raises as `train_member`
    does, and DataError where no photo can be labelled.
    """
    labels = None
    if member_scores(out, config) is None:
        labels = train_teachers(config, dataset, folds, fold, out, resources, on_epoch)
    tell = _numbered(on_epoch, 0 if config.pseudo.name == "none" else config.pseudo.rounds)
    scores = train_member(config, dataset, folds, fold, out, resources, tell, pseudo=labels)
    drop_pseudo_labels(out / "pseudo")
    return scores


def train_teachers(
    config: TrainConfig,
    dataset: CocoDataset,
    folds: Folds,
    fold: int,
    out: Path,
    resources: Resources,
    on_epoch: OnEpoch = lambda metrics: None,
) -> PseudoLabels | None:
    """All rounds but the last: the labels for that one, None where `config` asks for none."""
    if config.pseudo.name == "none":
        return None
    pool = open_pool(config.pseudo, dataset, folds, fold)  # what is wrong with it is said at once
    images = open_images(pool.photos, config.data.image_size)
    rounds = _Rounds(config, dataset, folds, fold, out, resources, on_epoch, pool, images)
    return rounds.labels_for(config.pseudo.rounds)


def round_config(config: TrainConfig, number: int) -> TrainConfig:
    """What round `number`, which is not the last, is trained with: all epochs, whatever the scores."""
    pseudo = config.pseudo.model_copy(update={"rounds": number}) if number else NoPseudoConfig()
    return config.model_copy(update={"pseudo": pseudo, "patience": 0})


@dataclass(frozen=True)
class _Rounds:
    """The rounds of one fold, each made when the one after it needs it."""

    config: TrainConfig
    dataset: CocoDataset
    folds: Folds
    fold: int
    out: Path
    resources: Resources
    on_epoch: OnEpoch
    pool: Pool
    images: NDArray[np.uint8]  # (P, S, S, 3) of the pool

    def labels_for(self, number: int) -> PseudoLabels:
        """What round `number`, from 1 on, is trained with."""
        assert self.config.pseudo.name != "none"
        last = number == self.config.pseudo.rounds
        folder = (self.out if last else self._folder(number)) / "pseudo"
        teacher = self._teach(number - 1)
        made_from = self._origin(teacher)
        labels = open_pseudo_labels(folder, self.images, made_from)
        if labels is None:
            member = load_member(teacher, self.resources.device, LAST)
            write_pseudo_labels(
                folder,
                self.pool,
                self._answers(member),
                self.config.data.image_size,
                self.config.pseudo,
                made_from,
            )
            labels = open_pseudo_labels(folder, self.images, made_from)
        assert labels is not None, "just written"
        return labels

    def _teach(self, number: int) -> Path:
        """The folder of the member of round `number`, trained where it is not."""
        config, folder = round_config(self.config, number), self._folder(number)
        labels = None
        if number and member_scores(folder, config) is None:
            labels = self.labels_for(number)
        train_member(
            config,
            self.dataset,
            self.folds,
            self.fold,
            folder,
            self.resources,
            _numbered(self.on_epoch, number),
            pseudo=labels,
            keep_last=True,
        )
        drop_pseudo_labels(folder / "pseudo")
        self._check_teacher(folder)
        return folder

    def _folder(self, number: int) -> Path:
        return self.out / "rounds" / str(number)

    def _check_teacher(self, folder: Path) -> None:
        """CheckpointError where it was trained for another fold, or on other photos: it could have seen
        the truth that it must not know."""
        about = read_metadata(folder / LAST)
        given = (str(self.fold), self._dataset_key)
        same_folds = (about["fold"], about["dataset"]) == given and np.array_equal(
            read_folds(folder / "folds.json", self.dataset).fold_of, self.folds.fold_of
        )
        if not same_folds:
            raise CheckpointError(
                f"{folder}: was trained on other photos or for another fold: choose another folder or "
                f"delete {self.out}"
            )

    @cached_property
    def _dataset_key(self) -> str:
        return dataset_key(self.dataset)

    def _origin(self, teacher: Path) -> str:
        """16 hex digits of all that the labels depend on."""
        digest = hashlib.blake2b(digest_size=8)
        for name, weights in sorted(load_file(teacher / LAST).items()):
            digest.update(name.encode() + weights.numpy().tobytes())
        digest.update(dataset_key(self.pool.photos).encode())
        digest.update(fingerprint(self.config.pseudo).encode())
        return digest.hexdigest()

    def _answers(self, teacher: Member) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        """Likeliest class and its softmax (S, S), photo by photo."""
        for images in batched(self.images, self.config.batch_size):
            confidence, labels = probabilities(teacher, images, self.resources.device).max(dim=1)
            yield from zip(
                labels.cpu().numpy().astype(np.uint8), confidence.cpu().numpy(), strict=True
            )


def _numbered(on_epoch: OnEpoch, number: int) -> OnEpoch:
    def tell(metrics: dict[str, Any]) -> None:
        on_epoch({**metrics, "round": number})

    return tell
