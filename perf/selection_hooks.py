"""Hooks around the token selection of a method, to measure its time and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

from foveate.method import Method
from foveate.parts import CachesPart, DetourPart, EncodersPart, LayersPart

DECISIONS = {
    EncodersPart: "merge",
    LayersPart: "at_boundary",
    DetourPart: "runs",
    CachesPart: "hold",
}


@contextmanager
def watched(method: Method, note: Callable[[Callable[[], Any]], Any]) -> Iterator[None]:
    """Let `note` run every selection in the vision encoder, between layers and for the cache."""
    with ExitStack() as stack:
        for cls in {type(part) for part in method.parts()}:
            for kind, name in DECISIONS.items():
                if issubclass(cls, kind):
                    decide = getattr(cls, name)
                    seen = lambda *args, _decide=decide: note(partial(_decide, *args))  # noqa: E731
                    stack.enter_context(patch.object(cls, name, seen))
        yield
