"""One thread at a time through modules whose taps all threads share."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from weakref import WeakKeyDictionary

from torch import nn

_PATIENCE = 1.0
_turns: WeakKeyDictionary[nn.Module, Turns] = WeakKeyDictionary()


class Turns:
    """Lets one thread in at a time; it may go in again while it is in.

    No plain lock: hooks take turns, and an interrupt from the keyboard ends a call without running
    the hook that would give the turn back. Who waits long looks whether the other still calls, and
    if not, tidies up in its place.

    left: what to call for that, for every call that runs.
    """

    def __init__(self) -> None:
        self.left: list[Callable[[], None]] = []
        self._free = threading.Condition()
        self._thread: int | None = None
        self._depth = 0

    def enter(self) -> None:
        """Wait for a turn."""
        me = threading.get_ident()
        with self._free:
            while self._thread not in (None, me):
                if not self._free.wait(_PATIENCE) and not _calls(self._thread):
                    while self.left:
                        self.left.pop()()
                    break
            if self._thread != me:
                self._thread, self._depth = me, 0
            self._depth += 1

    def leave(self) -> None:
        """Give the turn back, once for every `enter`."""
        with self._free:
            if self._thread != threading.get_ident():
                return
            self._depth -= 1
            if self._depth == 0:
                self._thread = None
                self._free.notify()

    def __enter__(self) -> Turns:
        self.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


def turns_of(modules: Iterable[nn.Module]) -> Turns:
    """The turns of these modules, the same for all models that share one of them."""
    modules = list(modules)
    found = next((_turns[m] for m in modules if m in _turns), None) or Turns()
    for module in modules:
        _turns.setdefault(module, found)
    return found


def running(module: nn.Module) -> int:
    """How many calls of `module` this thread is in."""
    count, frame = 0, sys._getframe()
    while frame is not None:
        called = frame.f_code is nn.Module._call_impl.__code__
        count += called and frame.f_locals.get("self") is module
        frame = frame.f_back
    return count


def _calls(thread: int | None) -> bool:
    """Whether a thread is inside a model, or inside what this package does around it."""
    frame: FrameType | None = sys._current_frames().get(thread or 0)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(("torch.", "foveate.")):
            return True
        frame = frame.f_back
    return False
