"""The hooks and attributes that an attachment puts on the modules of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from foveate.engine.copies import exclude_from_copies, include_in_copies

_ABSENT = object()


class Hooks:
    """All hooks and instance attributes of one attachment, so that all can be removed again.

    PyTorch calls the hooks of a module in the order in which they were registered.
    """

    def __init__(self) -> None:
        self._handles: dict[nn.Module, list[Any]] = {}
        self._attributes: list[tuple[nn.Module, str, Any]] = []

    def before(self, module: nn.Module, hook: Callable) -> None:
        """Call `hook(module, args, kwargs)` before each forward of `module`."""
        handle = module.register_forward_pre_hook(hook, with_kwargs=True)
        self._handles.setdefault(module, []).append(handle)

    def after(self, module: nn.Module, hook: Callable, **how: bool) -> None:
        """Call `hook` after each forward of `module`; how: see `register_forward_hook`."""
        handle = module.register_forward_hook(hook, **how)
        self._handles.setdefault(module, []).append(handle)

    def put(self, module: nn.Module, name: str, value: Any) -> None:
        """Set an instance attribute of `module`, which hides that of its class."""
        self._attributes.append((module, name, module.__dict__.get(name, _ABSENT)))
        module.__dict__[name] = value

    def exclude_from_copies(self) -> None:
        """Leave them out of copies of the model: deepcopy, pickle, torch.save."""
        for module, handles in self._handles.items():
            names = [name for owner, name, _ in self._attributes if owner is module]
            exclude_from_copies(module, {handle.id for handle in handles}, names)

    def remove(self) -> None:
        """Remove all hooks and attributes; a second call does nothing."""
        for module, handles in self._handles.items():
            include_in_copies(module)
            for handle in handles:
                handle.remove()
        self._handles.clear()
        while self._attributes:
            module, name, before = self._attributes.pop()
            module.__dict__.pop(name, None)
            if before is not _ABSENT:
                module.__dict__[name] = before
