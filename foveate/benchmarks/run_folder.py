"""Results on disk: a folder with `run.json` (configuration) and `results.jsonl` (rows).

Each finished setting is appended. A last row that was cut short by a kill or a full disk is removed
when the folder is opened again, so that only the running setting can be lost.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar, Self

from foveate.atomic_file import replacing
from foveate.benchmarks.errors import BenchError

ROWS = "results.jsonl"
RUN = "run.json"


class RunFolder:
    """The stored rows of one run.

    Attributes:
        fields: keys that every row must have.
        origin: what writes such folders, and with which command, for messages.
    """

    fields: ClassVar[frozenset[str]] = frozenset(
        {"kind", "task", "name", "role", "keep", "seed", "k", "n"}
    )
    origin: ClassVar[tuple[str, str]] = ("foveate bench", "foveate bench --out")

    def __init__(self, folder: Path, configuration: dict[str, Any], rows: list[dict[str, Any]]):
        self.folder = folder
        self.configuration = configuration
        self.rows = rows

    @classmethod
    def open(cls, folder: str | Path, configuration: dict[str, Any]) -> Self:
        """Continue the run in a folder, or start a new one.

        Raises `BenchError` if the folder has a run with another configuration.
        """
        folder = Path(folder)
        if (folder / RUN).exists() or (folder / ROWS).exists():
            found = cls.load(folder, repair=True)
            other = _difference(found.configuration, configuration)
            if other:
                raise BenchError(
                    f"{str(folder)!r} has a run with {other}: use another folder with --out, or "
                    "the same options as that run."
                )
            return found
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(folder / RUN) as partial:
                partial.write_text(json.dumps(configuration, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise BenchError(f"{str(folder)!r} can't be written ({error.strerror}).") from None
        return cls(folder, configuration, [])

    @classmethod
    def load(cls, folder: str | Path, repair: bool = False) -> Self:
        """The run in a folder. repair: remove an incomplete last row from the file."""
        folder = Path(folder)
        try:
            configuration = json.loads((folder / RUN).read_text(encoding="utf-8"))
            if not isinstance(configuration, dict) or "weights" not in configuration:
                raise ValueError
            path = folder / ROWS
            data = path.read_bytes() if path.exists() else b""
        except (OSError, ValueError):
            raise BenchError(
                f"{str(folder)!r} has no results of {cls.origin[0]}: use a folder that "
                f"'{cls.origin[1]}' wrote."
            ) from None
        whole = data.rfind(b"\n") + 1
        rows = []
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                row = json.loads(line)
                if not cls.fields <= row.keys():
                    raise ValueError
            except (ValueError, AttributeError):
                raise BenchError(
                    f"Line {number} of {str(path)!r} is not a row of results: delete that line and "
                    "run again."
                ) from None
            rows.append(row)
        if repair and whole < len(data):
            try:
                os.truncate(path, whole)
            except OSError as error:
                raise BenchError(f"{str(path)!r} can't be written ({error.strerror}).") from None
        return cls(folder, configuration, rows)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row. It is on disk when this returns."""
        path = self.folder / ROWS
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        try:
            _append(path, line)
        except OSError as error:
            raise BenchError(
                f"{str(path)!r} can't be written ({error.strerror}); {len(self.rows)} finished "
                "settings are saved in it: run the same command again to continue."
            ) from None
        self.rows.append(row)

    def keys(self) -> set[tuple]:
        """Task, name, keep, seed and k of the finished settings."""
        return {(r["task"], r["name"], r["keep"], r["seed"], r["k"]) for r in self.rows}


def _append(path: Path, line: bytes) -> None:
    with open(path, "ab", buffering=0) as file:
        written = 0
        while written < len(line):
            written += file.write(line[written:])
        os.fsync(file.fileno())


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The first difference between two configurations, as text; "" if there is none."""
    for name in wanted:
        if isinstance(wanted[name], dict):
            if inner := _difference(found.get(name) or {}, wanted[name]):
                return inner
        elif found.get(name) != wanted[name]:
            return f"{name}={found.get(name)!r} instead of {wanted[name]!r}"
    return ""
