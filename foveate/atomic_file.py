"""Writing a file that is complete or absent, whenever the process is interrupted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path; `path` is replaced by that file when the block ends without error."""
    partial = path.with_name(path.name + ".partial")
    yield partial
    os.replace(partial, path)
