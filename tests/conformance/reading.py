"""Checks that a mapping reads everything in a case, and only parameter values that it supports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Read(Mapping):
    """Values by name that record which of them were read."""

    def __init__(self, values: Mapping[str, Any]):
        self.values_, self.read = values, set()

    def __getitem__(self, name: str) -> Any:
        value = self.values_[name]
        self.read.add(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)

    def __repr__(self) -> str:
        return f"Read({list(self.values_)})"

    @property
    def ignored(self) -> list[str]:
        """Names that were not read."""
        return sorted(self.values_.keys() - self.read)


def only(params: Mapping[str, Any], **known: Any) -> None:
    """Raise `ValueError` if a parameter has another value than the supported one."""
    for name, value in known.items():
        if name in params and params[name] != value:
            raise ValueError(
                f"{name}={params[name]!r} is not mapped, only {value!r}: extend the mapping."
            )
