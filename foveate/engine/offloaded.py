"""Weights that accelerate holds elsewhere while their module does not run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch import nn


@contextmanager
def at_hand(modules: Iterable[nn.Module]) -> Iterator[None]:
    """While open, the parameters of `modules` can be read though the modules themselves don't run.

    Off-loaded ones are placeholders on the meta device except while their own forward runs.
    """
    held = [m for m in modules if hasattr(m, "_hf_hook")]
    if not held:
        yield
        return
    from accelerate.utils import align_module_device

    with ExitStack() as stack:
        for module in held:
            stack.enter_context(align_module_device(module))
        yield
