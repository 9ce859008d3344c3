"""The error of the tuner."""

from foveate.errors import FoveateError


class TuneError(FoveateError, ValueError):
    """Wrong arguments of a search, or a data file or plan that cannot be read or written."""
