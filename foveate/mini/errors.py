"""What can be wrong about a call into the mini models."""

from foveate.errors import FoveateError


class EvaluationError(FoveateError, ValueError):
    """An evaluation that was asked for with a wrong argument."""


class TrainingError(FoveateError, ValueError):
    """A training run that was asked for with a wrong argument."""


class WeightsError(FoveateError, RuntimeError):
    """Embedded weights that do not fit each other."""
