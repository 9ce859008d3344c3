"""Small facts of the host, handed to a device without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def on_device(values: Tensor | Sequence[Any], device: torch.device) -> Tensor:
    """Numbers that the host knows, as a tensor on `device`.

    `torch.tensor(..., device=)` and `.to(device)` wait until a GPU has done all work before them.
    """
    values = values if isinstance(values, Tensor) else torch.tensor(values)
    # CUDA copies what is not pinned aside before it returns, so that the source may go at once.
    return values.to(device, non_blocking=device.type == "cuda")
