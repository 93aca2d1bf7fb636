"""Every setting of one training run, typed, frozen and checked at construction. No torch here.

A setting that comes in variants (the loss, the optimizer, the schedule) is chosen by its `name`;
each variant has exactly the parameters that it uses, so no option is accepted and ignored. Losses,
augmentations and pseudo labels have modules of their own: trashseg/config_loss.py, config_augment.py and
config_pseudo.py.
"""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, Field, PositiveInt, field_validator, model_validator

from trashseg.config_augment import AugmentConfig
from trashseg.config_loss import CrossEntropyConfig, LossConfig
from trashseg.config_pseudo import NoPseudoConfig, PseudoConfig
from trashseg.sections import NonNegative, Positive, Probability, Section

# --- data and model ----------------------------------------------------------------------------


class DataConfig(Section):
    image_size: PositiveInt = 512
    """Side in pixels of the square that the network sees; photos of any size are resized to it.
    A multiple of 32, the coarsest stride of the encoders."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Number of cross-validation folds."""
    folds_seed: int = 0
    """Seed of the stratified assignment of photos to folds."""
    folds_file: str | None = None
    """A folds.json to use instead of stratifying; null stratifies."""
    keep_duplicates_together: bool = True
    """Photos that show the same picture (resized, encoded or lit otherwise) get one fold. A folds_file
    is taken as it is."""
    normalize: Literal["imagenet", "half", "trash", "none"] = "half"
    """Mean and deviation of each channel that photos are normalised with: ImageNet's, 0.5 and 0.5
    (encoders ported from TensorFlow, such as efficientnet-lite), the 2021 trash photos', or none
    (values stay 0 to 255)."""

    @field_validator("image_size")
    @classmethod
    def _fits_the_stride(cls, value: int) -> int:
        if value % 32:
            raise ValueError(f"{value} is not a multiple of 32; the nearest is {nearest_32(value)}")
        return value


def nearest_32(value: float) -> int:
    """The nearest multiple of 32, at least one."""
    return max(32, round(value / 32) * 32)


Architecture = Literal[
    "deeplabv3",
    "deeplabv3plus",
    "dpt",
    "fcn8s",
    "fpn",
    "linknet",
    "manet",
    "pan",
    "pspnet",
    "segformer",
    "unet",
    "unetplusplus",
    "upernet",
]


class ModelConfig(Section):
    arch: Architecture = "fpn"
    """Decoder, by its segmentation-models-pytorch name; `fcn8s` is the 2021 baseline's."""
    encoder: str = "timm-tf_efficientnet_lite0"
    """Encoder, by its segmentation-models-pytorch name; `tu-NAME` takes any timm encoder."""
    weights: str = "bundled"
    """Where the encoder's start comes from: `bundled` (efficientnet-lite0 only, from its installed
    package), `none` (random), the path of a .safetensors or .pth file, or a name that the hub has
    for this encoder, such as `imagenet` (needs the network once)."""
    freeze_encoder_epochs: Annotated[int, Field(ge=0)] = 0
    """First epochs in which the encoder stays as it is: weights, batch statistics, dropout off. 0
    never freezes it; as many as `epochs`, or more, do throughout."""

    @model_validator(mode="after")
    def _bundled_weights_fit(self) -> "ModelConfig":
        if self.weights == "bundled" and self.encoder != "timm-tf_efficientnet_lite0":
            raise ValueError(
                f"weights 'bundled' only fit timm-tf_efficientnet_lite0, not {self.encoder}; "
                "choose imagenet, none or a file"
            )
        return self


# --- optimizer and learning-rate schedule ------------------------------------------------------


class OptimizerSettings(Section):
    decoder_lr: Positive = 1e-3
    """Peak learning rate of the decoder and the segmentation head."""
    encoder_lr: Positive = 1e-4
    """Peak learning rate of the (pretrained) encoder."""
    weight_decay: NonNegative = 1e-6
    """L2 penalty (Adam, SGD) or decoupled decay (AdamW)."""


class AdamConfig(OptimizerSettings):
    """Adam, which the team settled on."""

    name: Literal["adam"] = "adam"


class AdamWConfig(OptimizerSettings):
    """Adam whose weight decay does not pass through its moments."""

    name: Literal["adamw"] = "adamw"


class SGDConfig(OptimizerSettings):
    """Stochastic gradient descent."""

    name: Literal["sgd"] = "sgd"
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Momentum, Nesterov's where it is not 0."""


OptimConfig = Annotated[AdamConfig | AdamWConfig | SGDConfig, Field(discriminator="name")]


class ConstantConfig(Section):
    """The rates stay."""

    name: Literal["constant"] = "constant"


class StepConfig(Section):
    """A decay every few epochs."""

    name: Literal["step"] = "step"
    step_size: PositiveInt = 5
    """Epochs between two decays."""
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Factor of a decay."""


class CosineRestartsConfig(Section):
    """Cycles of a linear warm-up and a cosine down (Loshchilov & Hutter 2017)."""

    name: Literal["cosine_restarts"] = "cosine_restarts"
    cycle_epochs: PositiveInt = 20
    """Epochs in the first cycle."""
    cycle_factor: Annotated[float, Field(ge=1.0)] = 1.0
    """Each cycle is this many times as long as the one before."""
    warmup_epochs: NonNegative = 1.0
    """Epochs of linear warm-up at the start of every cycle; less than cycle_epochs."""
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Each cycle's peak is this share of the one before."""
    min_factor: Probability = 0.0
    """Lowest rate, as a share of the first peak."""

    @model_validator(mode="after")
    def _warm_up_ends(self) -> "CosineRestartsConfig":
        if self.warmup_epochs >= self.cycle_epochs:
            raise ValueError(
                f"warmup_epochs ({self.warmup_epochs:g}) must be less than "
                f"cycle_epochs ({self.cycle_epochs})"
            )
        return self


class PlateauConfig(Section):
    """A decay when `metric` no longer rises on the validation photos."""

    name: Literal["plateau"] = "plateau"
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Factor of a decay."""
    patience: Annotated[int, Field(ge=0)] = 3
    """Epochs without a better metric that are waited for before a decay."""


class OneCycleConfig(Section):
    """One rise to the peak and one long way down, step by step."""

    name: Literal["onecycle"] = "onecycle"
    warmup_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    """Share of all steps in which the rate rises to its peak; at least one step."""


class PolynomialConfig(Section):
    """A fall to 0 over all steps."""

    name: Literal["polynomial"] = "polynomial"
    power: Positive = 0.9
    """Rate = peak * (1 - step / steps) ** power."""


ScheduleConfig = Annotated[
    ConstantConfig
    | StepConfig
    | CosineRestartsConfig
    | PlateauConfig
    | OneCycleConfig
    | PolynomialConfig,
    Field(discriminator="name"),
]


# --- which photos, which weights ---------------------------------------------------------------


class UniformConfig(Section):
    """Every photo once an epoch, but for the last ones that fill no batch."""

    name: Literal["uniform"] = "uniform"


class ClassBalancedConfig(Section):
    """Photos in which every class comes as often: a class is drawn, then a photo that holds it."""

    name: Literal["class_balanced"] = "class_balanced"
    strength: Probability = 1.0
    """Share of the draws that is balanced; the rest is uniform."""


class RareClassConfig(Section):
    """Photos with rare classes more often, all others alike: the repeat factor max(1, sqrt(t / f)) of
    the rarest class in a photo, f the share of photos that hold it (LVIS, Gupta et al. 2019)."""

    name: Literal["rare_class"] = "rare_class"
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """t: a class in a smaller share of the training photos is rare."""


SamplingConfig = Annotated[
    UniformConfig | ClassBalancedConfig | RareClassConfig, Field(discriminator="name")
]


class NoAveragingConfig(Section):
    """The weights as they are."""

    name: Literal["none"] = "none"


class EMAConfig(Section):
    """An exponential moving average of the weights, taken after every step."""

    name: Literal["ema"] = "ema"
    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.99
    """How much less each step weighs than the one after it: about 1 / (1 - decay) steps count. The
    weights before the first step never do."""


class SWAConfig(Section):
    """The mean of the weights at the ends of the last epochs (Izmailov et al. 2018). It wants a
    learning rate that stays high and a `patience` that lets them come."""

    name: Literal["swa"] = "swa"
    start_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.75
    """Share of `epochs` after which the mean begins."""


AveragingConfig = Annotated[NoAveragingConfig | EMAConfig | SWAConfig, Field(discriminator="name")]


# --- the whole ---------------------------------------------------------------------------------


class TrainConfig(Section):
    """One training run, whichever the fold. The defaults are the team's published settings (Adam with a
    tenth of the rate for the encoder, StepLR, cross entropy) on an encoder that needs no download."""

    seed: int = 0
    """Seeds the weights, the order of photos, augmentation and dropout."""
    epochs: PositiveInt = 100
    """Passes over the training photos, at most."""
    patience: Annotated[int, Field(ge=0)] = 8
    """Stop after this many epochs without a better `metric`; 0 never stops early."""
    batch_size: Annotated[int, Field(ge=2)] = 7
    """Photos a step; at least 2, which batch normalisation needs (smp issue 778)."""
    clip_norm: NonNegative = 0.0
    """Largest L2 norm of the gradient; 0 does not clip."""
    metric: Literal["miou", "miou_image"] = "miou"
    """What the best epoch and the best trial are chosen by, on validation photos."""
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    """`auto`: bfloat16 autocast on CUDA devices that have it, else float32. On GPUs `tf32` multiplies
    with mantissas of 10 bits, `float32` with all 23."""
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    """Memory layout of the network; `auto`: channels_last on CUDA, contiguous on CPU."""
    compile: bool = False
    """Whether torch.compile makes kernels for the network: some minutes of a trial's start, faster
    steps on GPUs. Needs a C++ compiler, on GPUs Triton."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = CrossEntropyConfig()
    augment: AugmentConfig = AugmentConfig()
    sampling: SamplingConfig = UniformConfig()
    """Which photos make an epoch's batches; their number stays."""
    optim: OptimConfig = AdamConfig()
    schedule: ScheduleConfig = StepConfig()
    averaging: AveragingConfig = NoAveragingConfig()
    """Mean of the weights over steps or epochs: what is validated and kept, once it has begun."""
    pseudo: PseudoConfig = NoPseudoConfig()
    """Photos that a network trained before has labelled, beside the labelled ones."""

    @model_validator(mode="after")
    def _truth_steers_no_teacher(self) -> "TrainConfig":
        if self.pseudo.name != "none" and self.schedule.name == "plateau":
            raise ValueError(
                "schedule.name plateau follows the scores on validation photos, and pseudo labels must "
                "not depend on their truth: choose another schedule, or pseudo.name none"
            )
        return self


# --- what is done to an ensemble's votes -------------------------------------------------------

ViewName = Literal[
    "identity",
    "horizontal_flip",
    "vertical_flip",
    "rotate_90",
    "rotate_180",
    "rotate_270",
]


class TtaConfig(Section):
    """Test-time augmentation: each network sees each photo in every view at every scale, and the
    softmax of all of them, turned back, is averaged."""

    views: Annotated[tuple[ViewName, ...], Field(min_length=1)] = ("identity",)
    """Transforms that can be undone exactly (trashseg/tta.py)."""
    scales: Annotated[tuple[Annotated[float, Field(ge=0.25, le=4.0)], ...], Field(min_length=1)] = (
        1.0,
    )
    """Sides of the photo as multiples of data.image_size, to the nearest multiple of 32."""

    @field_validator("views", "scales")
    @classmethod
    def _each_once(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(value)) < len(value):
            raise ValueError("name each once")
        return value


CrfBackend = Literal["lattice", "gpu", "pydensecrf"]


class CrfConfig(Section):
    """Dense CRF (Kraehenbuehl & Koltun 2011). The kernels are those of the winner of the 2021 trash
    competition, with 10 iterations, after which little changes."""

    gaussian_sxy: Positive = 3.0
    """Standard deviation in pixels of the kernel that only sees distance."""
    gaussian_weight: NonNegative = 3.0
    """Weight of that kernel."""
    bilateral_sxy: Positive = 49.0
    """Standard deviation in pixels of the kernel that sees distance and colour."""
    bilateral_srgb: Positive = 5.0
    """Standard deviation of that kernel in colour, in steps of 0..255."""
    bilateral_weight: NonNegative = 4.0
    """Weight of that kernel."""
    iterations: PositiveInt = 10
    """Mean-field iterations."""
    backend: CrfBackend = "lattice"
    """Which code computes it: `lattice` on CPUs, `gpu` on a GPU, `pydensecrf` the authors' own, which
    takes more than three times as long as `lattice`. Probabilities differ by less than 0.01."""
    max_side: PositiveInt = 1024
    """Photos with a longer side are refined at this size and the result is enlarged: time grows
    with the number of pixels."""


def fingerprint(config: BaseModel) -> str:
    """12 hex digits that two configurations share exactly when all their values are equal."""
    canonical = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
