"""Items as files: pictures with JSON lines, and the file formats of two evaluation toolkits."""

from collections.abc import Sequence
from pathlib import Path

from foveate.errors import UnknownName

from ..item import Item
from . import jsonl, lmms_eval, mmbench
from .pictures import check_folder

FORMATS = {"jsonl": jsonl.write, "mmbench": mmbench.write, "lmms-eval": lmms_eval.write}


def write(items: Sequence[Item], folder: str | Path, to: str = "jsonl", **options) -> list[Path]:
    """Write items to a folder in a format of `FORMATS`; the paths of its index files.

    mmbench takes ``circular=True`` for all rotations of the options.
    """
    if to not in FORMATS:
        raise UnknownName.of("export", to, FORMATS)
    return FORMATS[to](items, Path(folder), **options)


__all__ = ["FORMATS", "check_folder", "write"]
