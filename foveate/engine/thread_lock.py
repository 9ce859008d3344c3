"""A lock for modules that several threads call: one thread at a time runs an attached model."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from weakref import WeakKeyDictionary

from torch import nn

_CHECK_SECONDS = 1.0
_locks: WeakKeyDictionary[nn.Module, ThreadLock] = WeakKeyDictionary()


class ThreadLock:
    """A re-entrant lock that recovers from interrupted calls.

    `threading.RLock` is not enough. Hooks acquire and release the lock, and a KeyboardInterrupt
    ends a call without running the hook that releases it. A thread that has waited for a second
    checks whether the owner is still inside a model. If it is not, the waiting thread runs the
    clean-up of the interrupted calls and takes the lock.

    Attributes:
        cleanups: One function per running call, which undoes what the call changed.
    """

    def __init__(self) -> None:
        self.cleanups: list[Callable[[], None]] = []
        self._free = threading.Condition()
        self._owner: int | None = None
        self._depth = 0

    def enter(self) -> None:
        """Acquire the lock; block until it is free."""
        me = threading.get_ident()
        with self._free:
            while self._owner not in (None, me):
                if not self._free.wait(_CHECK_SECONDS) and not _in_model(self._owner):
                    while self.cleanups:
                        self.cleanups.pop()()
                    break
            if self._owner != me:
                self._owner, self._depth = me, 0
            self._depth += 1

    def leave(self) -> None:
        """Release the lock, once for every `enter`."""
        with self._free:
            if self._owner != threading.get_ident():
                return
            self._depth -= 1
            if self._depth == 0:
                self._owner = None
                self._free.notify()

    def __enter__(self) -> ThreadLock:
        self.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


def lock_of(modules: Iterable[nn.Module]) -> ThreadLock:
    """The lock of these modules. Models that share one of them share the lock."""
    modules = list(modules)
    found = next((_locks[m] for m in modules if m in _locks), None) or ThreadLock()
    for module in modules:
        _locks.setdefault(module, found)
    return found


def running(module: nn.Module) -> int:
    """How many nested calls of `module` are on the stack of this thread."""
    count, frame = 0, sys._getframe()
    while frame is not None:
        called = frame.f_code is nn.Module._call_impl.__code__
        count += called and frame.f_locals.get("self") is module
        frame = frame.f_back
    return count


def _in_model(thread: int | None) -> bool:
    """Whether the stack of a thread has a frame of torch or of this package."""
    frame: FrameType | None = sys._current_frames().get(thread or 0)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(("torch.", "foveate.")):
            return True
        frame = frame.f_back
    return False
