"""Bayesian optimisation of one number: a Gaussian process with expected improvement."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec

from foveate.tuning.errors import TuneError


def maximise(
    function: Callable[[float], float],
    low: float,
    high: float,
    *,
    log: bool = False,
    start: int = 5,
    steps: int = 15,
    seed: int = 0,
    enough: float | None = None,
) -> list[tuple[float, float]]:
    """Every (x, function(x)) of a search for the largest value in [low, high], best first.

    start: points drawn at random before the model has a say; steps: points after these. log: search
    in the logarithm of x. enough: stop where a value reaches it. The same seed gives the same
    points.
    """
    if find_spec("optuna") is None or find_spec("scipy") is None:
        raise TuneError(
            "Bayesian optimisation needs optuna; pip install 'foveate[search]', or search with "
            "searcher='bisect' and without P-Sigmoid."
        )
    import optuna
    import torch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.GPSampler(
            seed=seed, n_startup_trials=start, deterministic_objective=True
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        seen: list[tuple[float, float]] = []
        for _ in range(start + steps):
            # The process is fitted by gradients, whatever the caller does without them.
            with torch.enable_grad():
                trial = study.ask({"x": optuna.distributions.FloatDistribution(low, high, log=log)})
            x = float(trial.params["x"])
            value = function(x)
            study.tell(trial, value)
            seen.append((x, value))
            if enough is not None and value >= enough:
                break
    return sorted(seen, key=lambda pair: -pair[1])
