"""What parts return, checked against the contract of their stage: one sentence names the method.

Types, shapes, dtypes and devices cost nothing and are checked of every part. Whether indices are in
range, and none is there twice, is asked of the device, which the host then waits for. The tests of
this package answer it for its own methods, so only others pay, with a wait or two per reduction: on
a GPU an index out of range would end the whole process.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foveate.errors import FoveateError, shown
from foveate.parts import Detour, Merge, Part, Soft
from foveate.tokens import VisualTokens

_INTS = (torch.int16, torch.int32, torch.int64)


def check_select(part: Part, index: Any, tokens: VisualTokens, keep: int) -> Tensor:
    """What `select` returned as indices (B, keep) of different tokens."""
    b, n = tokens.features.shape[:2]
    wanted = f"indices (B, keep) = ({b}, {keep}) as int64 on {tokens.features.device}"
    if not _is(index, _INTS, (b, keep), tokens.features):
        raise _wrong(part, "select", index, wanted)
    index = index.long()
    if _foreign(part):
        order = index.sort(1).values
        outside = (order < 0) | (order >= n)
        twice = order[:, 1:] == order[:, :-1]
        if bool(outside.any() | twice.any()):
            what = "an index twice" if not bool(outside.any()) else "indices out of range"
            raise _sentence(part, "select", what, f"{keep} different ones from 0 to {n - 1}")
    return index


def check_reduce(part: Part, made: Any, tokens: VisualTokens, keep: int) -> VisualTokens:
    """What `reduce` returned as `keep` tokens whose books are in order."""
    if not isinstance(made, VisualTokens):
        raise _wrong(
            part, "reduce", made, "VisualTokens, as tokens.take and tokens.merge make them"
        )
    if made.n != keep:
        raise FoveateError(
            f"{type(part).__name__} promised {keep} of {tokens.n} tokens and returned {made.n}; "
            "its `count` and `reduce` must agree."
        )
    b, slots, x = len(tokens.features), tokens.assign.shape[1], tokens.features
    if not _is(made.features, (x.dtype,), (b, keep, x.shape[2]), x):
        shape = f"({b}, {keep}, {x.shape[2]})"
        raise _wrong(part, "reduce", made.features, f"features {shape} as {x.dtype} on {x.device}")
    for name, width in (("index", keep), ("assign", slots)):
        if not _is(getattr(made, name), _INTS, (b, width), x):
            raise _wrong(part, "reduce", getattr(made, name), f"{name} ({b}, {width}) as int64")
    if _foreign(part):
        order = made.index.sort(1).values
        twice = (order[:, 1:] == order[:, :-1]) & (order[:, 1:] >= 0)
        outside = (order < -1) | (order >= slots)
        lost = (made.assign < -1) | (made.assign >= keep)
        if bool(twice.any() | outside.any() | lost.any()):
            raise _sentence(
                part,
                "reduce",
                "tokens that stand in one slot twice or in none that there is",
                "different ones, as tokens.take and tokens.merge make them",
            )
    return made


def check_at_boundary(part: Part, verdict: Any, valid: Tensor) -> Tensor | Merge | Soft | None:
    """What `at_boundary` returned of the columns of `valid` (B, N)."""
    b, n = shape = tuple(valid.shape)
    if isinstance(verdict, Soft):
        if not _is(verdict.log_weight, None, shape, valid):
            raise _wrong(part, "at_boundary", verdict.log_weight, f"a log_weight ({b}, {n})")
    elif isinstance(verdict, Merge):
        if not _is(verdict.into, _INTS, shape, valid):
            raise _wrong(part, "at_boundary", verdict.into, f"columns into ({b}, {n}) as int64")
        if not _is(verdict.weight, None, shape, valid):
            raise _wrong(part, "at_boundary", verdict.weight, f"a weight ({b}, {n})")
        if verdict.place is not None and not _is(verdict.place, _INTS, shape, valid):
            raise _wrong(part, "at_boundary", verdict.place, f"a place ({b}, {n}) as int64")
        if _foreign(part) and bool(((verdict.into < -1) | (verdict.into >= n)).any()):
            raise _sentence(part, "at_boundary", "columns out of range", f"into from -1 to {n - 1}")
    elif verdict is not None and not _is(verdict, (torch.bool,), shape, valid):
        wanted = f"which columns stay, ({b}, {n}) as bool on {valid.device}, a Merge, Soft or None"
        raise _wrong(part, "at_boundary", verdict, wanted)
    return verdict


def check_runs(part: Part, verdict: Any, valid: Tensor) -> Detour | None:
    """What `runs` returned of the columns of `valid` (B, N)."""
    if verdict is None:
        return None
    if not isinstance(verdict, Detour):
        raise _wrong(part, "runs", verdict, "a Detour or None")
    b, n = shape = tuple(valid.shape)
    if not _is(verdict.run, (torch.bool,), shape, valid):
        raise _wrong(part, "runs", verdict.run, f"a run ({b}, {n}) as bool")
    if verdict.gate is not None and not _is(verdict.gate, None, shape, valid):
        raise _wrong(part, "runs", verdict.gate, f"a gate ({b}, {n})")
    if verdict.follow is not None:
        if not _is(verdict.follow, _INTS, shape, valid):
            raise _wrong(part, "runs", verdict.follow, f"columns to follow ({b}, {n}) as int64")
        if _foreign(part) and bool(((verdict.follow < -1) | (verdict.follow >= n)).any()):
            raise _sentence(part, "runs", "columns out of range", f"follow from -1 to {n - 1}")
    return verdict


def check_merge(
    part: Part, plan: Any, size: Tensor
) -> tuple[Tensor, int, *tuple[Tensor, ...]] | None:
    """What `merge` returned of a tower's tokens, of sizes (B, T)."""
    if plan is None:
        return None
    shape = tuple(size.shape)
    wanted = f"None, or assign ({shape[0]}, {shape[1]}) as int64 and a count"
    if not isinstance(plan, tuple) or len(plan) not in (2, 3):
        raise _wrong(part, "merge", plan, wanted)
    assign, count, *weights = plan
    if not _is(assign, _INTS, shape, size) or not isinstance(count, int):
        raise _wrong(part, "merge", assign if isinstance(count, int) else count, wanted)
    if weights and not _is(weights[0], None, shape, size):
        raise _wrong(part, "merge", weights[0], f"weights ({shape[0]}, {shape[1]})")
    if _foreign(part) and bool(((assign < -1) | (assign >= count)).any()):
        raise _sentence(part, "merge", "an assign out of range", f"-1 to {count - 1}")
    return plan


def _is(value: Any, dtypes: tuple | None, shape: tuple[int, ...], like: Tensor) -> bool:
    """Whether it is a tensor of a shape and of some dtypes, None for floats, where `like` is."""
    if not isinstance(value, Tensor) or value.device != like.device:
        return False
    kind = value.is_floating_point() if dtypes is None else value.dtype in dtypes
    return kind and tuple(value.shape) == shape


def _foreign(part: Part) -> bool:
    """Whether a part comes from outside this package."""
    return not type(part).__module__.startswith("foveate.")


def _wrong(part: Part, name: str, value: Any, wanted: str) -> FoveateError:
    what = shown(value)
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        what = f"{kind} of shape {tuple(value.shape)} on {value.device}"
    return _sentence(part, name, what, wanted)


def _sentence(part: Part, name: str, what: str, wanted: str) -> FoveateError:
    return FoveateError(f"{type(part).__name__}.{name} returned {what}; return {wanted}.")
