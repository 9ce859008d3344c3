"""The start of `generate`: notes the length of its prompt, and copies the ids to the CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from foveate.engine.prompt.host_copy import read
from foveate.engine.state import ThreadState


def wrap_generate(state: ThreadState, original: Callable) -> Callable:
    """A wrapper of a model's `generate` that also notes its prompt in `state`.

    `generate` runs the vision encoder before the inner model gets any ids. Ids on a device are
    copied to the CPU here, because a copy after the launch of the encoder would wait for it.
    """

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any):
        ids = kwargs.get("input_ids")
        ids = kwargs.get("inputs", args[0] if args else None) if ids is None else ids
        given = {**kwargs, "input_ids": ids}
        rows = isinstance(ids, Tensor) and ids.dim() == 2
        whole = rows and isinstance(given.get("attention_mask"), Tensor)
        if whole and ids.device.type != "cpu":
            state.known = read(given)
        state.prompted = ids.shape[1] if rows else None
        try:
            return original(*args, **kwargs)
        finally:
            state.known = state.prompted = None

    return wrapper
