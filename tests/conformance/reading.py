"""What a mapping reads of a case: all of it, and only values that it knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Read(Mapping):
    """Values by name that remembers which of them were asked for."""

    def __init__(self, values: Mapping[str, Any]):
        self.values_, self.asked = values, set()

    def __getitem__(self, name: str) -> Any:
        value = self.values_[name]
        self.asked.add(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)

    def __repr__(self) -> str:
        return f"Read({list(self.values_)})"

    @property
    def ignored(self) -> list[str]:
        """Names that nobody asked for."""
        return sorted(self.values_.keys() - self.asked)


def only(params: Mapping[str, Any], **known: Any) -> None:
    """Raise `ValueError` where a parameter is there with another value than the one known here."""
    for name, value in known.items():
        if name in params and params[name] != value:
            raise ValueError(
                f"{name}={params[name]!r} is not mapped, only {value!r}: extend the mapping."
            )
