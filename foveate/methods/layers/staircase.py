"""Schedules that fall in steps: the layers before which tokens are pruned, and the ratios."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from foveate.budget import Keep, resolve
from foveate.errors import InvalidParameter
from foveate.methods.layers.base import beyond_depth
from foveate.parts import BoundaryState


def check_staircase(
    stages: Sequence[int] | None,
    ratios: Sequence[float] | None,
    name: str = "layer_list",
    shares: str = "image_token_ratio_list",
) -> None:
    """`InvalidParameter` where layers do not ascend, ratios rise, or their numbers differ."""
    if stages is not None and (
        min(stages, default=0) < 1 or any(a >= b for a, b in zip(stages, stages[1:], strict=False))
    ):
        raise InvalidParameter(f"{name}={stages} is not valid: use ascending layers from 1 on.")
    if ratios is None:
        return
    if not all(0 <= b <= a <= 1 for a, b in zip((1.0, *ratios), ratios, strict=False)):
        raise InvalidParameter(
            f"{shares}={ratios} is not valid: use ratios in [0, 1] that never rise."
        )
    if stages is not None and len(ratios) != len(stages):
        raise InvalidParameter(
            f"{shares} has {len(ratios)} ratios, but {name} has {len(stages)} layers; give one "
            "for each."
        )


def check_depth(
    stages: Sequence[int],
    ratios: Sequence[float] | None,
    layers: int,
    name: str = "layer_list",
    shares: str = "image_token_ratio_list",
) -> None:
    """`InvalidParameter` where a decoder of `layers` layers lacks a stage."""
    if stages and stages[-1] >= layers:
        raise beyond_depth(name, stages, layers)
    if ratios is not None and len(ratios) != len(stages):
        raise InvalidParameter(
            f"{shares} has {len(ratios)} ratios, but a model of {layers} decoder layers has "
            f"{len(stages)} pruning stages; give one for each."
        )


def staged_counts(
    state: BoundaryState, keep: Keep, ratio_of: Callable[[float], float]
) -> list[int]:
    """Tokens per row to keep: the floor of ratio_of(mean ratio) times those that entered."""
    counts, known = [], state.known
    for entered, items in zip(known.entered, known.items, strict=True):
        share = keep
        if isinstance(share, int):
            share = resolve(share * items, entered) / entered if entered else 1.0
        counts.append(int(entered * ratio_of(share)))
    return counts
