"""Settings of pseudo labels: for whose photos, and how sure a network must be. No torch here."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator

from trashseg.sections import Probability, Section


class NoPseudoConfig(Section):
    """Labelled photos alone."""

    name: Literal["none"] = "none"


class PseudoSettings(Section):
    rounds: PositiveInt = 1
    """Rounds after the first, each trained from scratch with the labels of the one before. All but the
    last train all `epochs`, and teach with their last weights, which no truth has chosen."""
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Softmax of the likeliest class from which on a pixel counts fully."""
    band: Probability = 0.2
    """A pixel below the threshold counts the less the farther it is, and nothing this far below; 0 makes
    the threshold hard."""
    least_sure: Probability = 0.5
    """A photo takes part if its pixels count this much on average."""
    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    """Share of an epoch's photos that are pseudo-labelled; they come in addition to the labelled ones,
    which are drawn as often as without."""


class FolderPseudoConfig(PseudoSettings):
    """The photos of a folder, but for those that show what a network has seen the truth of."""

    name: Literal["folder"] = "folder"
    folder: str
    """Unlabelled photos, those in folders below it too; kept as an absolute path."""

    @field_validator("folder")
    @classmethod
    def _absolute(cls, value: str) -> str:
        return str(Path(value).resolve())


class ValidationPseudoConfig(PseudoSettings):
    """The validation photos of the fold, whose truth stays unknown (transductive learning): the score on
    them tells what to expect of photos that can be had before the training, not of others."""

    name: Literal["validation"] = "validation"


PseudoConfig = Annotated[
    NoPseudoConfig | FolderPseudoConfig | ValidationPseudoConfig, Field(discriminator="name")
]
