"""The same TPE in a third of the time, for simulations alone."""

import numpy as np
import numpy.typing as npt
from optuna.samplers._tpe import _truncnorm
from scipy.special import log_ndtr


def compiled_log_ndtr(a: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The logarithm of the normal distribution function at `a`."""
    result: npt.NDArray[np.float64] = log_ndtr(np.asarray(a, np.float64))
    return result


def speed_up_tpe() -> None:
    """For the rest of the process, whoever samples: Optuna computes this function number by number in
    Python, to do without scipy, and spends most of a proposal on it. scipy's is the same to the last
    digits."""
    _truncnorm._log_ndtr = compiled_log_ndtr
