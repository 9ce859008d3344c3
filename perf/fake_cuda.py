"""Counts host-device synchronisations without a GPU.

Tensors report the device "cuda:0" and compute on the CPU. Every operation that would block the host
is counted with its source line: reading a value, `nonzero`, boolean indexing, and copies in either
direction without `non_blocking`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

import foveate

PACKAGE = str(Path(foveate.__file__).parent)
CUDA = torch.device("cuda:0")
aten = torch.ops.aten
READS = {
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
    aten.unique_consecutive.default: "unique",
    aten.bincount.default: "bincount",
    aten.equal.default: "equal",
}
INDEXING = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
}

# (kind, line of the package or "elsewhere") -> how often, while `counted` is open.
_waits: Counter[tuple[str, str]] | None = None


@contextmanager
def counted() -> Iterator[Counter[tuple[str, str]]]:
    """Collect the synchronisations that happen inside."""
    global _waits
    _waits = found = Counter()
    try:
        yield found
    finally:
        _waits = None


def _wait(kind: str) -> None:
    if _waits is not None:
        _waits[kind, _line()] += 1


def _line() -> str:
    """The innermost running line of the package, unless transformers was called from it."""
    frame = sys._getframe()
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(PACKAGE):
            return f"{Path(name).relative_to(PACKAGE)}:{frame.f_lineno}"
        if "/transformers/" in name:
            break
        frame = frame.f_back
    return "elsewhere"


class FakeCudaTensor(Tensor):
    """A CPU tensor that reports a CUDA device."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, real: Tensor) -> FakeCudaTensor:
        made = Tensor._make_wrapper_subclass(
            cls,
            real.size(),
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            layout=real.layout,
            device="cpu",
            requires_grad=False,
        )
        made.held = real
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"FakeCudaTensor({tuple(self.shape)})"

    def tolist(self) -> list:
        _wait("tolist")
        return self.held.tolist()

    def numpy(self, *args: Any, **kwargs: Any):
        _wait("numpy")
        return self.held.numpy()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _dispatched(func, args, kwargs or {})


def _real(x: Any) -> Any:
    return x.held if isinstance(x, FakeCudaTensor) else x


def _there(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _dispatched(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run one operator on the real tensors; results report the device of the arguments."""
    there = any(isinstance(a, FakeCudaTensor) for a in tree_leaves((args, kwargs)))
    device = kwargs.get("device")
    if func is aten._local_scalar_dense.default:
        _wait("item")
        return func(*tree_map(_real, args))
    if func is aten._to_copy.default and device is not None:
        _crossing(isinstance(args[0], FakeCudaTensor), _there(device), kwargs.get("non_blocking"))
        if not _there(device):
            return func(*tree_map(_real, args), **{**kwargs, "device": "cpu"})
    if func is aten.copy_.default:
        to, source = (isinstance(a, FakeCudaTensor) for a in args[:2])
        _crossing(source, to, len(args) > 2 and args[2])
    if func in READS:
        _wait(READS[func])
    if func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None:
        _wait("repeat_interleave")
    if func in INDEXING:
        _indexed(func, args)
    if device is not None:
        there, kwargs = there or _there(device), {**kwargs, "device": "cpu"}
    out = func(*tree_map(_real, args), **tree_map(_real, kwargs))
    if isinstance(out, Tensor) and (written := _written(func, args, kwargs)) is not None:
        return written
    if not there:
        return out
    return tree_map(lambda t: FakeCudaTensor(t) if type(t) in (Tensor, nn.Parameter) else t, out)


def _crossing(source: bool, to: bool, non_blocking: Any) -> None:
    if source != to and not non_blocking:
        _wait("copy to the CPU" if source else "copy to the GPU")


def _indexed(func: Any, args: tuple) -> None:
    where = [i for i in args[1] if i is not None]
    for i in where:
        if i.dtype in (torch.bool, torch.uint8):
            # Writing one number at a mask needs no list of indices, hence no sync.
            if func is aten.index.Tensor or args[2].numel() != 1 or len(where) != 1:
                _wait("boolean index")
        elif i.dim() and isinstance(args[0], FakeCudaTensor) and not isinstance(i, FakeCudaTensor):
            _wait("index on the CPU")


def _written(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The tensor that an operator wrote into; None if it made a new one."""
    for i, a in enumerate(func._schema.arguments):
        if a.alias_info is not None and a.alias_info.is_write:
            return args[i] if i < len(args) else kwargs.get(a.name)
    return None


class _Factories(TorchFunctionMode):
    """Creates tensors for "cuda" on the CPU and moves tensors between the two."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            out = func(*tree_map(_real, args), **tree_map(_real, kwargs))
            return FakeCudaTensor(out) if isinstance(args[0], FakeCudaTensor) else out
        name = getattr(func, "__name__", "")
        if name in ("to", "cuda", "cpu") and args and isinstance(args[0], Tensor):
            return _moved(name, args, kwargs)
        if not _there(kwargs.get("device")) or name == "__get__":
            return func(*args, **kwargs)
        if func in (torch.tensor, torch.as_tensor):
            if isinstance(args[0], FakeCudaTensor):
                return args[0]
            _wait("made on the CPU")
        out = func(*args, **{**kwargs, "device": "cpu"})
        return tree_map(lambda t: FakeCudaTensor(t) if type(t) is Tensor else t, out)


def _moved(name: str, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    x, *rest = args
    device, dtype = kwargs.get("device"), kwargs.get("dtype")
    waits = not kwargs.get("non_blocking", False)
    device = name if name in ("cuda", "cpu") else device
    for a in rest:
        if isinstance(a, str | torch.device):
            device = a
        elif isinstance(a, torch.dtype):
            dtype = a
        elif isinstance(a, Tensor):
            device, dtype = a.device, a.dtype
        elif isinstance(a, bool):
            waits = not a
    source = isinstance(x, FakeCudaTensor)
    to = source if device is None else _there(device)
    _crossing(source, to, not waits)
    out = x if source and to else _real(x)
    if dtype is not None and out.dtype != dtype:
        out = torch._C.TensorBase.to(out, dtype)
    return FakeCudaTensor(out) if to and not isinstance(out, FakeCudaTensor) else out


def placed(module: nn.Module) -> nn.Module:
    """The module with its parameters and buffers on the fake GPU."""
    for m in module.modules():
        for name, p in m._parameters.items():
            if p is not None:
                m._parameters[name] = nn.Parameter(FakeCudaTensor(p.detach()), requires_grad=False)
        for name, b in m._buffers.items():
            if b is not None:
                m._buffers[name] = FakeCudaTensor(b)
    return module


class _Event:
    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def record(self, *args: Any) -> None:
        pass

    def elapsed_time(self, other: Any) -> float:
        return 0.0


_module_to = nn.Module.to


def _to(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """Move the learned modules of a method to the fake GPU once."""
    asked = [kwargs.get("device"), *(a.device if isinstance(a, Tensor) else a for a in args)]
    if any(isinstance(a, str | torch.device) and _there(a) for a in asked):
        here = [p for p in self.parameters() if not isinstance(p.data, FakeCudaTensor)]
        if here:
            _wait("module to the GPU")
            placed(self)
        return self
    return _module_to(self, *args, **kwargs)


@contextmanager
def fake_cuda() -> Iterator[None]:
    """While open, tensors created on "cuda" are fake ones. No CUDA graph is captured."""
    with (
        mock.patch.multiple(
            torch.cuda,
            Event=_Event,
            synchronize=lambda *args: None,
            is_current_stream_capturing=lambda: True,
        ),
        mock.patch.object(nn.Module, "to", _to),
        torch.no_grad(),
        _Factories(),
    ):
        yield
