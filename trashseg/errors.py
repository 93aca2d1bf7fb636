"""What can go wrong for a user, each message saying what, where, and what to do."""


class TrashSegError(Exception):
    """Base of every error that a user can cause and mend; launch.py prints it as one line."""


class ConfigError(TrashSegError):
    """A configuration, search space or command line holds a key or value that does not work."""


class DataError(TrashSegError):
    """Photos, polygons or folds are missing, unreadable or contradictory."""


class WeightsError(TrashSegError):
    """Pretrained weights cannot be had or do not fit the encoder."""


class CheckpointError(TrashSegError):
    """A checkpoint is missing, damaged, or belongs to another configuration."""


class NonFiniteError(TrashSegError):
    """The loss became NaN or infinite in an epoch, of which nothing is kept."""


class MemoryShortError(TrashSegError):
    """Not even the smallest part of a batch fits into the GPU's memory."""


class ResourceError(TrashSegError):
    """The machine or cluster does not have what the configuration asks for."""


class ExportError(TrashSegError):
    """A network cannot be written in another form, or does not say the same in it."""
