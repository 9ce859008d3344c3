"""Errors of the embedded models: evaluation, training, weights."""

from foveate.errors import FoveateError


class EvaluationError(FoveateError, ValueError):
    """An evaluation was called with an invalid argument."""


class TrainingError(FoveateError, ValueError):
    """A training run was called with an invalid argument."""


class WeightsError(FoveateError, RuntimeError):
    """Embedded weights do not match each other."""
