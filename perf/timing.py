"""Medians of interleaved runs, and peak memory of one run."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch

_CUDA = torch.cuda.is_available()


def synchronise() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one run."""
    synchronise()
    start = time.perf_counter()
    run()
    synchronise()
    return time.perf_counter() - start


def interleaved(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median of the seconds that each variant returns; every round runs all variants once."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for step in range(rounds + 1):
        for name, run in variants.items():
            value = run()
            if step:  # the first round is a warm-up
                taken[name].append(value)
    return {name: median(values) for name, values in taken.items()}


def peak_bytes(run: Callable[[], object]) -> int:
    """Peak memory of a run, weights included: of the GPU, or of the process without one."""
    peak = Peak()
    run()
    return peak.total()


def extra_bytes(run: Callable[[], object]) -> int:
    """Memory that a run needs in addition to what is allocated before."""
    return Peak().within(run)


class Peak:
    """Peak memory from now on: of the GPU, or of the process without one."""

    def __init__(self) -> None:
        gc.collect()
        self._most = 0
        self._restart()

    def total(self) -> int:
        """Peak so far."""
        self._most = max(self._most, self._highest())
        return self._most

    def within(self, run: Callable[[], object]) -> int:
        """Memory that a run needs in addition; it counts in the total peak too."""
        self.total()
        held = self._restart()
        run()
        return self._highest() - held

    def _highest(self) -> int:
        return torch.cuda.max_memory_allocated() if _CUDA else _status("VmHWM")

    def _restart(self) -> int:
        if _CUDA:
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        # Return freed pages to the system, or they hide what a run allocates.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{name} is missing from /proc/self/status")
