"""ENSEMBLE/manifest.yaml: all that `predict` and `evaluate` need to know of an ensemble."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from trashseg.choice import Choice
from trashseg.config import CrfConfig, TtaConfig
from trashseg.config_file import read_yaml, validate, write_yaml
from trashseg.sections import Section
from trashseg.weighting import Weight, is_heard

FILE = "manifest.yaml"

Kind = Literal["soft_vote", "soft_vote_crf"]


class ManifestMember(Section):
    folder: str
    """Of the trained fold, seen from the manifest's own."""
    weight: Weight
    """Of its vote, or of its vote for each class; all sum to 1."""

    @field_validator("weight")
    @classmethod
    def _is_heard(cls, value: Weight) -> Weight:
        if not is_heard(value) or np.min(value) < 0:
            raise ValueError(
                "should be greater than 0; by class none below, and one at least above"
            )
        return value


class Manifest(Section):
    classes: tuple[str, ...]
    """The background, then the categories by id."""
    members: Annotated[tuple[ManifestMember, ...], Field(min_length=1)]
    """Who votes."""
    tta: TtaConfig
    """Views in which each member sees each photo."""
    by_object: bool = False
    """Whether each object is of one class; an ensemble from before there was a choice says nothing."""
    chosen: Kind
    """Whether the CRF is part of the ensemble."""
    crf: CrfConfig
    """The CRF that was compared with the vote alone."""

    @model_validator(mode="after")
    def _weights_are_of_the_classes(self) -> "Manifest":
        for member in self.members:
            if isinstance(member.weight, tuple) and len(member.weight) != len(self.classes):
                raise ValueError(
                    f"{member.folder} has weights of {len(member.weight)} classes, the ensemble has "
                    f"{len(self.classes)}: build it again"
                )
        return self


def write_manifest(
    folder: Path,
    out: Path,
    members: Mapping[Path, Weight],
    classes: tuple[str, ...],
    with_crf: Choice,
    chosen: Kind,
) -> None:
    """Write into `folder`, which will be called `out`; `members` are folders and weights."""
    assert with_crf.crf is not None, "one was compared with the vote alone"
    manifest = Manifest(
        classes=classes,
        members=tuple(
            ManifestMember(folder=Path(os.path.relpath(member, out)).as_posix(), weight=weight)
            for member, weight in members.items()
        ),
        tta=with_crf.tta,
        by_object=with_crf.by_object,
        chosen=chosen,
        crf=with_crf.crf,
    )
    write_yaml(folder / FILE, manifest.model_dump(mode="json"))


def read_manifest(folder: Path) -> Manifest:
    """ConfigError where it is damaged or of another version."""
    return validate(Manifest, read_yaml(folder / FILE), where=str(folder / FILE))
