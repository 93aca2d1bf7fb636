"""Settings of the losses, one variant a loss. What several losses have in common is a term."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trashseg.sections import NonNegative, Probability, Section

ClassWeights = Literal["none", "inverse_sqrt", "inverse"]


# --- terms -------------------------------------------------------------------------------------


class WeightedTerm(Section):
    class_weights: ClassWeights = "none"
    """Weight of each class in the pixel-wise term: `none`, or from the pixel frequencies f of the
    training photos: `inverse_sqrt` (1/sqrt f) or `inverse` (1/f), scaled to mean 1."""


class CrossEntropyTerm(WeightedTerm):
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the target that is spread over all classes."""


class FocalTerm(Section):
    gamma: NonNegative = 2.0
    """Focusing exponent of the focal loss; 0 is cross entropy."""


class OverlapTerm(Section):
    smooth: NonNegative = 1.0
    """Pixels added to the numerator and denominator of Dice and Tversky."""


class TverskyTerm(OverlapTerm):
    beta: Probability = 0.7
    """Weight of missed pixels in Tversky; pixels that are falsely found get the rest. 0.5 is Dice,
    more finds more of the small classes."""


class LovaszTerm(Section):
    per_image: bool = False
    """Lovasz' IoU of each photo, as in `miou_image`, instead of the whole batch's, as in `miou`."""


class DiceMixture(OverlapTerm):
    dice_weight: Probability = 0.5
    """Weight of Dice; the other term gets the rest."""


# --- variants ----------------------------------------------------------------------------------


class CrossEntropyConfig(CrossEntropyTerm):
    """Cross entropy, which the team settled on."""

    name: Literal["cross_entropy"] = "cross_entropy"


class FocalConfig(WeightedTerm, FocalTerm):
    """Cross entropy that counts sure pixels less (Lin et al. 2017)."""

    name: Literal["focal"] = "focal"


class CrossEntropyL1Config(CrossEntropyTerm):
    """Cross entropy and the L1 distance between softmax and truth."""

    name: Literal["ce_l1"] = "ce_l1"
    l1_weight: NonNegative = 1.0
    """Weight of the L1 distance between softmax and one-hot truth, beside cross entropy's 1."""


class DiceConfig(OverlapTerm):
    """Dice on softmax over the whole batch, the mean over classes."""

    name: Literal["dice"] = "dice"


class DiceTopKConfig(DiceMixture):
    """Dice and the cross entropy of the hardest pixels (TopK of nnU-Net)."""

    name: Literal["dice_topk"] = "dice_topk"
    topk_percent: Annotated[float, Field(gt=0.0, le=100.0)] = 10.0
    """Share in percent of the hardest pixels over which cross entropy is averaged."""


class DiceFocalConfig(DiceMixture, FocalTerm):
    """Dice and the focal loss."""

    name: Literal["dice_focal"] = "dice_focal"


class DiceBCEConfig(DiceMixture):
    """Dice and binary cross entropy of each class against the others."""

    name: Literal["dice_bce"] = "dice_bce"


class LovaszConfig(LovaszTerm):
    """Lovasz-softmax, a surrogate of the IoU itself (Berman et al. 2018)."""

    name: Literal["lovasz"] = "lovasz"


class TverskyConfig(TverskyTerm):
    """Dice that weighs missed pixels and falsely found ones (Salehi et al. 2017)."""

    name: Literal["tversky"] = "tversky"


class SSIMConfig(Section):
    """Structural similarity of softmax and truth (Wang et al. 2004)."""

    name: Literal["ssim"] = "ssim"


class SumConfig(CrossEntropyTerm, FocalTerm, TverskyTerm, LovaszTerm):
    """A weighted sum of losses. The defaults are those of the winner of the 2021 trash competition.

    The settings of a term have no effect where its weight is 0.
    """

    name: Literal["sum"] = "sum"
    ce: NonNegative = 0.75
    """Weight of cross entropy; 0 leaves it out, as with each of the others."""
    dice: NonNegative = 0.25
    """Weight of Dice."""
    ssim: NonNegative = 0.25
    """Weight of structural similarity."""
    focal: NonNegative = 0.0
    """Weight of the focal loss."""
    lovasz: NonNegative = 0.0
    """Weight of Lovasz-softmax."""
    tversky: NonNegative = 0.0
    """Weight of Tversky."""

    @property
    def term_weights(self) -> dict[str, float]:
        """The weight of each term that is in."""
        weights = {
            "ce": self.ce,
            "dice": self.dice,
            "ssim": self.ssim,
            "focal": self.focal,
            "lovasz": self.lovasz,
            "tversky": self.tversky,
        }
        return {term: weight for term, weight in weights.items() if weight > 0}

    @model_validator(mode="after")
    def _has_a_term(self) -> "SumConfig":
        if not self.term_weights:
            raise ValueError(
                "a sum of no terms: give one of ce, dice, ssim, focal, lovasz and tversky a "
                "weight above 0"
            )
        return self


LossConfig = Annotated[
    CrossEntropyConfig
    | FocalConfig
    | CrossEntropyL1Config
    | DiceConfig
    | DiceTopKConfig
    | DiceFocalConfig
    | DiceBCEConfig
    | LovaszConfig
    | TverskyConfig
    | SSIMConfig
    | SumConfig,
    Field(discriminator="name"),
]
