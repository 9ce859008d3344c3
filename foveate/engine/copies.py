"""Copies of an attached model are bare: deepcopy, pickle and torch.save leave the method behind."""

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


def leave_behind(module: nn.Module, hooks: set[int], names: Iterable[str]) -> None:
    """From now on copies of `module` lack these hooks, by their ids, and these own attributes.

    Both copy and pickle ask the object itself how it is taken apart.
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


def stay(module: nn.Module) -> None:
    """Take back what `leave_behind` did."""
    module.__dict__.pop("__reduce_ex__", None)
