"""The smallest networks, for tests of what happens around a training and not of how well it learns."""

TINY_MODEL = {"arch": "linknet", "encoder": "tu-test_resnet", "weights": "none"}
"""Its encoder is one that timm has for tests; a step takes a fifth of the default network's time."""

TINY_LEARNER = {**TINY_MODEL, "arch": "fpn"}
"""A step takes twice as long; after an epoch or two it is sure of something, and of what depends on its
settings."""


def as_settings(model: dict[str, str]) -> tuple[str, ...]:
    """The model as settings of a command."""
    return tuple(f"model.{key}={value}" for key, value in model.items())
