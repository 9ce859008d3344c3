"""Copies of an attached model: deepcopy, pickle and torch.save leave out the hooks of a method."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from torch import nn

_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


def exclude_from_copies(module: nn.Module, hooks: set[int], names: Iterable[str]) -> None:
    """Leave hooks and attributes of this package out of later copies of `module`.

    It overrides `__reduce_ex__` on the instance, which both `copy` and `pickle` call.

    Args:
        module: The module that copies are made of.
        hooks: Ids of the hook handles to leave out.
        names: Instance attributes to leave out.
    """
    names = {"__reduce_ex__", *names}

    def reduce(protocol: int) -> tuple:
        made, arguments, state, *rest = type(module).__reduce_ex__(module, protocol)
        bare: dict[str, Any] = {k: v for k, v in state.items() if k not in names}
        for name in _HOOKS:
            left = ((k, v) for k, v in bare.get(name, {}).items() if k not in hooks)
            bare[name] = OrderedDict(left)
        return made, arguments, bare, *rest

    module.__dict__["__reduce_ex__"] = reduce


def include_in_copies(module: nn.Module) -> None:
    """Undo `exclude_from_copies`."""
    module.__dict__.pop("__reduce_ex__", None)
