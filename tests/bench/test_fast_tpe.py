"""What simulations compute faster is what Optuna computes."""

import numpy as np
import optuna
import pytest
from optuna.samplers._tpe import _truncnorm

from bench.fast_tpe import compiled_log_ndtr, speed_up_tpe


def proposals(seed: int) -> list[float]:
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=False, n_startup_trials=3)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    found = []
    for _ in range(20):
        trial = study.ask()
        x, n = trial.suggest_float("x", 0.0, 1.0), trial.suggest_int("n", 1, 500, log=True)
        study.tell(trial, -abs(x - 0.3) - n / 500)
        found += [x, n]
    return found


def test_the_compiled_function_is_optunas_far_out_too() -> None:
    at = np.concatenate([np.linspace(-40, 10, 501), [-300.0, 0.0, 300.0]])
    assert compiled_log_ndtr(at) == pytest.approx(_truncnorm._log_ndtr(at), rel=1e-9, abs=1e-15)


def test_proposals_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = proposals(1)
    monkeypatch.setattr(_truncnorm, "_log_ndtr", _truncnorm._log_ndtr)  # put back afterwards
    speed_up_tpe()
    assert _truncnorm._log_ndtr is compiled_log_ndtr
    assert proposals(1) == pytest.approx(slow, rel=1e-9)
