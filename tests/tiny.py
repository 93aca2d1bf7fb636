"""The smallest network, for tests of what happens around a training and not of what it learns."""

TINY_MODEL = {"arch": "linknet", "encoder": "tu-test_resnet", "weights": "none"}
"""Its encoder is one that timm has for tests; a step takes a fifth of the default network's time."""

TINY = tuple(f"model.{key}={value}" for key, value in TINY_MODEL.items())
"""The same, as settings of a command."""
