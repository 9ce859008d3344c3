"""Compares outputs with those of a case: indices exactly, floats within the case's atol."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def check_equal(found: Any, expected: Any, atol: float, name: str) -> None:
    """Raise `AssertionError` unless `found` agrees with `expected`.

    Indices, counts and masks are compared as integers; a float instead of an integer fails. None
    agrees only with None.
    """
    if isinstance(expected, Tensor):
        assert isinstance(found, Tensor), f"{name}: {type(found).__name__} instead of a tensor"
        assert found.shape == expected.shape, (
            f"{name}: {tuple(found.shape)} instead of {tuple(expected.shape)}"
        )
        if expected.is_floating_point():
            torch.testing.assert_close(
                found.double(), expected.double(), atol=atol, rtol=0, msg=lambda m: f"{name}: {m}"
            )
        else:
            assert not found.is_floating_point(), f"{name}: {found.dtype} for {expected.dtype}"
            assert torch.equal(found.long(), expected.long()), name
    elif isinstance(expected, dict):
        assert isinstance(found, dict) and found.keys() == expected.keys(), name
        for key, value in expected.items():
            check_equal(found[key], value, atol, f"{name}.{key}")
    elif isinstance(expected, list | tuple):
        assert isinstance(found, list | tuple) and len(found) == len(expected), name
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            check_equal(a, b, atol, f"{name}[{i}]")
    else:
        assert type(found) is type(expected), f"{name}: {found!r} instead of {expected!r}"
        close = isinstance(expected, float) and abs(found - expected) <= atol
        assert close or found == expected, f"{name}: {found!r} instead of {expected!r}"
