"""Copies small CPU tensors to a device without a device sync."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def on_device(values: Tensor | Sequence[Any], device: torch.device) -> Tensor:
    """Numbers that the host knows, as a tensor on `device`.

    `torch.tensor(..., device=)` and `.to(device)` would wait until a GPU has done all work before.
    """
    values = values if isinstance(values, Tensor) else torch.tensor(values)
    # CUDA stages unpinned memory before the call returns, so the source may be freed at once.
    return values.to(device, non_blocking=device.type == "cuda")
