"""Checks of what parts return, against the contract of their stage; errors name the method.

Types, shapes, dtypes and devices are checked for every part, at no cost. Whether indices are in
range and unique is only known on the device, so this check makes the host wait. It runs only for
parts from outside this package, once or twice per reduction. On a GPU an index out of range would
otherwise end the process. The methods of this package are covered by its tests.
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
    """Return the result of `select`, checked: (B, keep) different token indices."""
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
            raise _sentence(part, "select", what, f"{keep} different indices from 0 to {n - 1}")
    return index


def check_scores(part: Part, scores: Any, like: Tensor) -> Tensor:
    """Return the result of `scores`, checked: one float per entry of `like` (B, N)."""
    if not _is(scores, None, tuple(like.shape), like):
        wanted = f"floats (B, N) = {tuple(like.shape)} on {like.device}"
        raise _wrong(part, "scores", scores, wanted)
    return scores


def check_reduce(part: Part, made: Any, tokens: VisualTokens, keep: int) -> VisualTokens:
    """Return the result of `reduce`, checked: `keep` tokens, consistent `index` and `assign`."""
    if not isinstance(made, VisualTokens):
        raise _wrong(part, "reduce", made, "VisualTokens made with tokens.take or tokens.merge")
    if made.n != keep:
        raise FoveateError(
            f"{type(part).__name__}.reduce returned {made.n} of {tokens.n} tokens, but count "
            f"promised {keep}; return the same number from both."
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
                "tokens whose index or assign is out of range or has a slot twice",
                "VisualTokens made with tokens.take or tokens.merge",
            )
    return made


def check_at_boundary(part: Part, verdict: Any, valid: Tensor) -> Tensor | Merge | Soft | None:
    """Return the result of `at_boundary`, checked. valid (B, N) are the columns it is about."""
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
        wanted = f"a ({b}, {n}) bool tensor on {valid.device}, a Merge, a Soft or None"
        raise _wrong(part, "at_boundary", verdict, wanted)
    return verdict


def check_runs(part: Part, verdict: Any, valid: Tensor) -> Detour | None:
    """Return the result of `runs`, checked. valid (B, N) are the columns it is about."""
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
    """Return the result of `merge`, checked. size (B, T) are the sizes of the encoder's tokens."""
    if plan is None:
        return None
    shape = tuple(size.shape)
    wanted = f"None or a tuple of assign ({shape[0]}, {shape[1]}) as int64 and count"
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
    """Whether `value` is a tensor of this shape and one of `dtypes`, on the device of `like`.

    `dtypes` None means any floating-point type.
    """
    if not isinstance(value, Tensor) or value.device != like.device:
        return False
    kind = value.is_floating_point() if dtypes is None else value.dtype in dtypes
    return kind and tuple(value.shape) == shape


def _foreign(part: Part) -> bool:
    """Whether a part is defined outside this package."""
    return not type(part).__module__.startswith("foveate.")


def _wrong(part: Part, name: str, value: Any, wanted: str) -> FoveateError:
    what = shown(value)
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        what = f"{kind} of shape {tuple(value.shape)} on {value.device}"
    return _sentence(part, name, what, wanted)


def _sentence(part: Part, name: str, what: str, wanted: str) -> FoveateError:
    return FoveateError(f"{type(part).__name__}.{name} returned {what}; return {wanted}.")
