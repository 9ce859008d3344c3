"""Measures seconds per stage without a device sync."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Sums seconds per stage. On CUDA it records events and waits for them only in `seconds`."""

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        self._open: dict[str, object] = {}
        self._spans: dict[str, list] = defaultdict(list)

    def __reduce__(self):
        # The clock of a copied cache starts at zero.
        return Clock, (torch.device("cuda" if self._cuda else "cpu"),)

    def _now(self):
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def start(self, stage: str) -> None:
        """Start a span of `stage`."""
        self._open[stage] = self._now()

    def stop(self, stage: str) -> None:
        """End the open span of `stage`, if there is one."""
        if stage in self._open:
            self._spans[stage].append((self._open.pop(stage), self._now()))

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        """Time a `with` block."""
        self.start(stage)
        try:
            yield
        finally:
            self.stop(stage)

    def count(self, stage: str) -> int:
        """Number of finished spans of `stage`."""
        return len(self._spans.get(stage, ()))

    def seconds(self) -> dict[str, float]:
        """Total seconds per stage, in the order in which the stages first ran."""
        if self._cuda:
            torch.cuda.synchronize()
            return {
                s: sum(a.elapsed_time(b) for a, b in spans) / 1000
                for s, spans in self._spans.items()
            }
        return {s: sum(b - a for a, b in spans) for s, spans in self._spans.items()}
