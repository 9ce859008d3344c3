"""Methods as the test matrix makes them: trained ones with seeded, untrained parts."""

from __future__ import annotations

from typing import Any

from foveate.method import Method, create, method_class
from foveate.trained import TrainedMethod


def made(slug: str, **parameters: Any) -> Method:
    """A registered method that runs on any model, however small and random."""
    if issubclass(method_class(slug), TrainedMethod):
        parameters = {"weights": "random", **parameters}
    return create(slug, **parameters)
