"""What can be wrong about a call into the bench."""

from foveate.errors import FoveateError


class BenchError(FoveateError, ValueError):
    """A bench that was asked for wrongly, or whose results can't be read or written."""
