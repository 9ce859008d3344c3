"""The metrics of one method: at one retention ratio on one task, and over all tasks and ratios."""

from __future__ import annotations

from dataclasses import dataclass

Interval = tuple[float, float] | None

SPAN = 0.30
"""Tasks enter the means only if the full model is this far above the no-image baseline."""

INSENSITIVE = 0.9
"""A task is insensitive to pruning from layer k on if dropping all visual tokens there leaves this
normalised accuracy."""


@dataclass(frozen=True)
class Cell:
    """One method at one retention ratio on one task. All intervals are 95 % intervals.

    Attributes:
        task: id of the task, such as "I1".
        name: the method or control.
        keep: requested retention ratio in (0, 1).
        n: number of test items.
        accuracy: share of correct answers.
        accuracy_interval: Wilson interval of `accuracy`.
        normalised_accuracy: 0 = no-image baseline, 1 = full model, not clipped; None if the full
            model is not above the no-image baseline.
        normalised_accuracy_interval: paired bootstrap interval.
        gain: accuracy minus that of random token selection at the same ratio; None without it.
        gain_interval: paired bootstrap interval of `gain`.
        p: McNemar's exact test against random token selection with seed 0.
        tokens: visual tokens that enter the LLM, per item.
        tokens_mean: visual tokens per item, mean over the decoder layers.
        flops: FLOPs of the LLM prefill and of the token selection, per item.
        flops_share: `flops` over the prefill FLOPs of the full model.
        seconds: measured seconds per item and stage ("encode", "select", "prefill").
    """

    task: str
    name: str
    keep: float
    n: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    normalised_accuracy: float | None
    normalised_accuracy_interval: Interval
    gain: float | None
    gain_interval: Interval
    p: float | None
    tokens: float
    tokens_mean: float
    flops: float
    flops_share: float
    seconds: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """One method over all scored tasks and all retention ratios below 1.

    Attributes:
        name: the method or control.
        role: "method" or "control".
        normalised_accuracy: mean over tasks and ratios; 0 = no-image baseline, 1 = full model.
        normalised_accuracy_interval: paired 95 % bootstrap interval.
        gain: normalised accuracy minus that of random token selection at the same ratios.
        gain_interval: paired 95 % bootstrap interval of `gain`.
        k90: smallest retention ratio with a mean normalised accuracy of 0.9, interpolated.
        below: True if even the smallest measured ratio reaches 0.9: `k90` is an upper bound then.
        keeps: number of measured ratios that the method can run at.
    """

    name: str
    role: str
    normalised_accuracy: float | None
    normalised_accuracy_interval: Interval
    gain: float | None
    gain_interval: Interval
    k90: float | None
    below: bool
    keeps: int
