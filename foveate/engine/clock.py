"""Measures seconds per stage without a device sync."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Sums:
    """Seconds per stage over many clocks, in constant memory.

    On CUDA spans wait in a queue until the device has passed them. The host never waits for the
    device, except in `seconds`.
    """

    _QUEUED = 256

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._queue: deque[tuple[str, Any, Any]] = deque()
        # Threads share an attachment.
        self._lock = threading.Lock()

    def add(self, stage: str, begin: Any, end: Any) -> None:
        """Take in a span between two times or two CUDA events."""
        with self._lock:
            self._counts[stage] = self._counts.get(stage, 0) + 1
            if isinstance(begin, float):
                self._sum(stage, end - begin)
                return
            self._queue.append((stage, begin, end))
            while len(self._queue) > self._QUEUED and self._queue[0][2].query():
                self._settle()

    def seconds(self) -> dict[str, float]:
        """Total seconds per stage, and per decode step as "per_token"."""
        with self._lock:
            if self._queue:
                torch.cuda.synchronize()
            while self._queue:
                self._settle()
            return per_token(dict(self._seconds), self._counts.get("decode", 0))

    def _settle(self) -> None:
        stage, begin, end = self._queue.popleft()
        self._sum(stage, begin.elapsed_time(end) / 1000)

    def _sum(self, stage: str, seconds: float) -> None:
        self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds


class Clock:
    """Sums seconds per stage. On CUDA it records events and waits for them only in `seconds`.

    sums: takes in the spans of this clock too.
    """

    def __init__(self, device: torch.device, sums: Sums | None = None):
        self._cuda = device.type == "cuda"
        self._sums = sums
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
            span = self._open.pop(stage), self._now()
            self._spans[stage].append(span)
            if self._sums is not None:
                self._sums.add(stage, *span)

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
        """Total seconds per stage in the order in which stages first ran, then "per_token"."""
        if self._cuda:
            torch.cuda.synchronize()
            found = {
                s: sum(a.elapsed_time(b) for a, b in spans) / 1000
                for s, spans in self._spans.items()
            }
        else:
            found = {s: sum(b - a for a, b in spans) for s, spans in self._spans.items()}
        return per_token(found, self.count("decode"))


def per_token(seconds: dict[str, float], steps: int) -> dict[str, float]:
    """Seconds per stage, with the decode time per step where there was a step."""
    return {**seconds, "per_token": seconds["decode"] / steps} if steps else seconds
