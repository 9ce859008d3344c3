"""What a search found, as a file that `attach` and the commands read."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from foveate.atomic_file import replacing
from foveate.errors import FoveateError, shown
from foveate.method import Method, from_dict
from foveate.tuning.errors import TuneError

VERSION = 1


@dataclass(frozen=True)
class Plan:
    """The chosen setting, None where none is cheap and good enough, and what speaks for it.

    model, layers: what it was found on. held_out: its figures on samples that chose nothing.
    front: the settings that no cheaper one equals on the fitted samples, with both figures.
    evaluations: measurements that the search rests on. asked: what was asked for.
    """

    setting: dict[str, Any] | None
    model: str
    layers: int
    held_out: dict[str, Any] = field(default_factory=dict)
    front: list[dict[str, Any]] = field(default_factory=list)
    evaluations: int = 0
    asked: dict[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> Method:
        """The method with its parameters, ready for `attach`."""
        if self.setting is None:
            raise TuneError("The search found no setting that keeps what was asked for.")
        return from_dict(self.setting)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"plan": VERSION, **asdict(self)}

    def save(self, path: str | Path) -> Path:
        """Write the plan; a file of that name is replaced only by a whole one."""
        path = Path(path)
        try:
            with replacing(path) as partial:
                partial.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise TuneError(f"{str(path)!r} can't be written ({error.strerror}).") from None
        return path


def read_plan(path: str | Path) -> Plan:
    """The plan in a file that `foveate tune` wrote."""
    if not isinstance(path, str | os.PathLike):
        raise TuneError(f"{shown(path)} is no plan; give a file that 'foveate tune --out' wrote.")
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("plan") != VERSION:
            raise ValueError
        return Plan(**data)
    except FileNotFoundError:
        raise TuneError(f"There is no plan {str(path)!r}; check the path.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise TuneError(
            f"{str(path)!r} holds no plan; give a file that 'foveate tune --out' wrote."
        ) from None


def from_plan(path: str | Path) -> Method:
    """The method that a plan chose, for `attach`."""
    plan = read_plan(path)
    try:
        return plan.method
    except FoveateError as error:
        raise TuneError(f"The plan {str(path)!r} can't be used: {error}") from None
