"""What can be wrong about a search."""

from foveate.errors import FoveateError


class TuneError(FoveateError, ValueError):
    """A search that was asked for wrongly, or whose data or plan can't be read or written."""
