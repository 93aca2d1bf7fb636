"""Settings of the augmentations, one section each."""

from typing import Annotated

from pydantic import Field, PositiveInt, field_validator

from trashseg.sections import Probability, Section


class Augmentation(Section):
    p: Probability = 0.0
    """Probability that a training photo gets it; 0 leaves it out."""


class CLAHEConfig(Augmentation):
    clip_limit: Annotated[float, Field(ge=1.0)] = 4.0
    """Upper bound of the contrast limit, drawn from [1, clip_limit]."""


class BrightnessContrastConfig(Augmentation):
    limit: Probability = 0.2
    """Brightness and contrast each change by up to this share."""


class CutoutConfig(Augmentation):
    holes: PositiveInt = 8
    """Number of square holes."""
    size: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Side of a hole as a share of the image's side."""


class ElasticTransformConfig(Augmentation):
    displacement: Annotated[float, Field(ge=0.0, le=0.5)] = 0.02
    """Standard deviation of a pixel's displacement, as a share of the side."""
    smoothness: Annotated[float, Field(gt=0.0, le=0.5)] = 0.06
    """Standard deviation of the displacement field's blur, as a share of the side; at least a pixel."""


class GridDistortionConfig(Augmentation):
    steps: Annotated[int, Field(ge=2)] = 5
    """Grid cells a side."""
    limit: Probability = 0.3
    """Largest shift of a grid line, as a share of a cell."""


class ShiftScaleRotateConfig(Augmentation):
    shift: Probability = 0.0625
    """Largest shift, as a share of the side."""
    scale: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Largest relative change of size."""
    rotate: Annotated[float, Field(ge=0.0, le=180.0)] = 45.0
    """Largest rotation in degrees."""


class RandomResizedCropConfig(Augmentation):
    min_scale: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Smallest share of the photo's area that a crop keeps."""


class CopyPasteConfig(Augmentation):
    """Objects of other training photos pasted in (Ghiasi et al. 2021), before all else happens."""

    classes: str | tuple[str, ...] = "rare"
    """Whose objects: `rare` (the classes with fewer training pixels than the median class of objects),
    `all`, or the name of a class, or a list of names."""
    objects: PositiveInt = 3
    """A photo gets 1 to this many, each of a class drawn first, so that all classes come as often."""
    scale: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    """Largest relative change of an object's size."""
    flip: Probability = 0.5
    """Probability that an object is mirrored horizontally."""

    @field_validator("classes", mode="before")
    @classmethod
    def _are_names(cls, value: object) -> object:
        names = [value] if isinstance(value, str) else value
        if not (
            isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names)
        ):
            raise ValueError("write rare, all, the name of a class, or a list of names")
        return value


class AugmentConfig(Section):
    """Applied to training photos in this order, then normalised like every photo.

    The defaults are the five of the team's published recipes (bcaitech1/p3-ims-obd-savetheearth,
    FinalTrainAugmentation). They drew one of grid distortion, elastic transform and crop with
    probability 0.3 (weights 1, 1, 2); here each has its share of that and is drawn on its own.
    """

    copy_paste: CopyPasteConfig = CopyPasteConfig()
    random_resized_crop: RandomResizedCropConfig = RandomResizedCropConfig(p=0.15, min_scale=0.08)
    horizontal_flip: Augmentation = Augmentation(p=0.5)
    vertical_flip: Augmentation = Augmentation()
    shift_scale_rotate: ShiftScaleRotateConfig = ShiftScaleRotateConfig(
        p=0.3, shift=0.06, scale=0.1, rotate=90.0
    )
    elastic_transform: ElasticTransformConfig = ElasticTransformConfig(p=0.075)
    grid_distortion: GridDistortionConfig = GridDistortionConfig(p=0.075, limit=0.4)
    clahe: CLAHEConfig = CLAHEConfig()
    brightness_contrast: BrightnessContrastConfig = BrightnessContrastConfig()
    channel_shuffle: Augmentation = Augmentation()
    cutout: CutoutConfig = CutoutConfig()
