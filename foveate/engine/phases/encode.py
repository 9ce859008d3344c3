"""Encode: the vision encoder runs, with the parts before and inside it, and signals are recorded.

`generate` encodes before the first forward call; a bare forward call encodes inside of it. Both
call `get_image_features` or `get_video_features` of the inner model.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from foveate.engine.anatomy import Anatomy
from foveate.engine.refusals import refuse_coarse_dtype
from foveate.engine.setup import Setup
from foveate.engine.state import ThreadState


def wrap_features(setup: Setup, state: ThreadState, modality: str, original: Callable) -> Callable:
    """A wrapper of a model's `get_*_features` whose output carries a `Record` of the items too."""
    names = [n for n in inspect.signature(original).parameters if n != "kwargs"]

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any):
        # Some families encode videos by calling their own image function.
        if state.encoding:
            return original(*args, **kwargs)
        refuse_coarse_dtype()
        inputs = {**dict(zip(names, args, strict=False)), **kwargs}
        setup.reporter.settle()
        if state.clock is None or state.clock.count("prefill"):
            state.clock = setup.reporter.clock(next(setup.anatomy.inner.parameters()).device)
        with state.lock, state.clock.span("encode"):
            state.encoding = True
            try:
                clock, record = state.clock, setup.record_scores
                return setup.encoder.run(modality, original, inputs, clock, record)
            finally:
                state.encoding = False

    return wrapper


def encode(anatomy: Anatomy, inner: nn.Module, modality: str, kw: dict[str, Any]) -> Any:
    """Features of the pixels that a forward call was given; None where it was given none."""
    if all(kw.get(name) is None for name in anatomy.pixels(modality)):
        return None
    features = getattr(inner, f"get_{modality}_features")
    names = [n for n in inspect.signature(features).parameters if kw.get(n) is not None]
    return features(**{n: kw[n] for n in names}, return_dict=True)


def pictured(anatomy: Anatomy, kw: dict[str, Any]) -> bool:
    """Whether a call brings ids and pixels."""
    pixels = (name for m in anatomy.modalities for name in anatomy.pixels(m))
    return kw.get("input_ids") is not None and any(kw.get(n) is not None for n in pixels)
