"""What can be done with the votes of several configurations, and what is tried."""

from dataclasses import dataclass, replace
from typing import Any

from trashseg.config import CrfConfig, TtaConfig
from trashseg.views import View, views_of
from trashseg.weighting import Weights, scaled

PLAIN_TTA = TtaConfig()


@dataclass(frozen=True)
class Choice:
    """How an ensemble predicts. Equal choices give equal masks."""

    weights: Weights
    """Of each candidate (a configuration with its folds and seeds), sum 1, perhaps by class; 0 leaves it
    out."""
    tta: TtaConfig = PLAIN_TTA
    crf: CrfConfig | None = None
    class_factors: tuple[float, ...] = ()
    """(C,) how many times the vote for each class counts; where there are none, all count once."""
    by_object: bool = False
    """Whether each object is of one class (trashseg/objects.py)."""

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(view.name for view in views_of(self.tta))

    @property
    def effective_weights(self) -> Weights:
        """With the classes' factors: those of the vote."""
        return scaled(self.weights, self.class_factors) if self.class_factors else self.weights

    @property
    def without_crf(self) -> "Choice":
        return replace(self, crf=None)

    def describe(self) -> dict[str, Any]:
        """For a report."""
        return {
            "weights": list(self.weights),
            "class_factors": list(self.class_factors),
            "by_object": self.by_object,
            "tta": self.tta.model_dump(mode="json"),
            "crf": self.crf.model_dump(mode="json") if self.crf else None,
        }


def equal_vote(candidates: int, voters: int | None = None) -> Choice:
    """The first `voters` candidates, or all, count the same; nothing is done to their votes."""
    count = candidates if voters is None else voters
    return Choice((1 / count,) * count + (0.0,) * (candidates - count))


def single(candidate: int, candidates: int) -> Choice:
    """One candidate votes alone."""
    return Choice(tuple(float(other == candidate) for other in range(candidates)))


@dataclass(frozen=True)
class Proposals:
    """What is tried beyond the plain vote. None of it may have been proposed by looking at scores:
    the same proposals serve every fold, also that which they are judged on."""

    start_with: int | None = None
    """How many candidates, the first ones, vote alike until selection finds better weights; where there
    is no number, all."""
    selection_per_class: bool = False
    """Whether each class may weigh the candidates in its own way."""
    tta: tuple[TtaConfig, ...] = ()
    logit_adjustment: tuple[float, ...] = ()
    """Powers of the classes' shares of pixels by which their votes are divided."""
    by_object: bool = False
    """Whether it is tried that each object is of one class."""
    crf: tuple[CrfConfig, ...] = (CrfConfig(),)
    crf_photos: int = 200
    """Photos on which CRF proposals are compared; the deployed one is checked on all."""

    @property
    def views(self) -> tuple[View, ...]:
        """All that the networks have to be asked for, each once; the plain one first."""
        return tuple(dict.fromkeys(v for tta in (PLAIN_TTA, *self.tta) for v in views_of(tta)))
