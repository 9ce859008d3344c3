"""The error of the benchmark."""

from foveate.errors import FoveateError


class BenchError(FoveateError, ValueError):
    """Wrong arguments of a benchmark, or results that cannot be read or written."""
