"""The result of a search, as a file for `from_plan` and `foveate ask --plan`."""

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
    """The result of a search.

    Attributes:
        setting: the chosen method with its parameters; None if no cheaper setting is accurate
            enough.
        model: name of the model that was measured.
        layers: number of its decoder layers.
        held_out: metrics of the setting on the held-out split: "accuracy", "drop", "cost", ...
        front: the Pareto-optimal settings on the search split ("fit"), with the metrics of both
            splits.
        evaluations: number of measured settings.
        asked: "max_drop" and "budget" of the search.
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
            raise TuneError("The plan has no setting: no cheaper setting was within max_drop.")
        return from_dict(self.setting)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values for JSON."""
        return {"plan": VERSION, **asdict(self)}

    def save(self, path: str | Path) -> Path:
        """Write the plan; an existing file is replaced only after a complete write."""
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
        raise TuneError(f"{shown(path)} is not a plan: use a file that 'foveate tune --out' wrote.")
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
            f"{str(path)!r} is not a plan: use a file that 'foveate tune --out' wrote."
        ) from None


def from_plan(path: str | Path) -> Method:
    """The method of a plan, for `attach`."""
    plan = read_plan(path)
    try:
        return plan.method
    except FoveateError as error:
        raise TuneError(f"The plan {str(path)!r} cannot be used: {error}") from None
