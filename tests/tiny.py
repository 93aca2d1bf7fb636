"""The smallest network, for tests of what happens around a training and not of what it learns."""

TINY_MODEL = {"encoder": "tu-test_resnet", "weights": "none"}
"""Its encoder is one that timm has for tests; an epoch takes half as long as with the default one."""

TINY = tuple(f"model.{key}={value}" for key, value in TINY_MODEL.items())
"""The same, as settings of a command."""
