"""What is said of one method at one keep, and of one method as a whole."""

from __future__ import annotations

from dataclasses import dataclass

Interval = tuple[float, float] | None

SPAN = 0.30
"""Full must be this far above blind for a task to enter means of R."""

VACUOUS = 0.9
"""R from which on a model without visual tokens behind some layer counts as about full."""


@dataclass(frozen=True)
class Cell:
    """One method at one keep on one task. Intervals are of 95 %.

    skill: retained skill R, None where the full model is no better than blind. gain: accuracy above
    random at the same keep, p: McNemar's exact test against random of seed 0; None where random is
    not in the results. seconds: per item and stage.
    """

    task: str
    name: str
    keep: float
    n: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    skill: float | None
    skill_interval: Interval
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
    """One method over all kept tasks and all keeps below 100 %; k90 is of the mean curve.

    gain: skill above that of random at the same keeps. keeps: how many of the keeps it can run at.
    below: whether even the smallest keep has R of 0.9, so that k90 is an upper limit.
    """

    name: str
    role: str
    skill: float | None
    skill_interval: Interval
    gain: float | None
    gain_interval: Interval
    k90: float | None
    below: bool
    keeps: int
