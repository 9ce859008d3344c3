"""Bayesian optimisation of one number: Gaussian process, expected improvement."""

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
    """Maximise a function of one number; all evaluated points (x, function(x)), best first.

    Args:
        function: what to maximise.
        low, high: range of x.
        log: search in the logarithm of x. Default False.
        start: number of random points before the Gaussian process is used. Default 5.
        steps: number of points after these. Default 15.
        seed: equal seeds give equal points. Default 0.
        enough: stop as soon as a value reaches this one. Default None: evaluate all points.
    """
    if find_spec("optuna") is None or find_spec("scipy") is None:
        raise TuneError(
            "Bayesian optimisation needs optuna: pip install 'foveate[search]', or use "
            "searcher='bisect' and methods other than gsearch."
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
            # optuna fits the Gaussian process by gradients; the caller may have disabled them.
            with torch.enable_grad():
                trial = study.ask({"x": optuna.distributions.FloatDistribution(low, high, log=log)})
            x = float(trial.params["x"])
            value = function(x)
            study.tell(trial, value)
            seen.append((x, value))
            if enough is not None and value >= enough:
                break
    return sorted(seen, key=lambda pair: -pair[1])
