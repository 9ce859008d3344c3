"""Reading weights that accelerate keeps on the CPU or on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch import nn


@contextmanager
def loaded(modules: Iterable[nn.Module]) -> Iterator[None]:
    """While open, the parameters of `modules` hold their values.

    accelerate loads the weights of an offloaded module for its own forward only. At all other times
    its parameters are placeholders on the meta device.
    """
    offloaded = [m for m in modules if hasattr(m, "_hf_hook")]
    if not offloaded:
        yield
        return
    from accelerate.utils import align_module_device

    with ExitStack() as stack:
        for module in offloaded:
            stack.enter_context(align_module_device(module))
        yield
