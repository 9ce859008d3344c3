"""What is measured: methods x keep for every task, and the controls that stand in every table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from foveate.benchmarks.controls import DropAllTokens, EvidenceRemoved, Oracle
from foveate.benchmarks.errors import BenchError
from foveate.benchmarks.evidence import COUNTING, EvidenceBoxes
from foveate.budget import check_keep
from foveate.method import Composed, Method, create, registered, unknown_method

KEEPS = (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)
SEEDS = (0, 1, 2)
METHODS = ("fastervlm", "visionzip", "divprune", "tome", "fastv", "pyramiddrop")
"""Run by default: one of every idea, few enough for a coffee break."""

BASELINES = ("uniform", "grid_pool", "downsample")
CONTROLS = (
    "blind",
    "full",
    "oracle",
    "anti_oracle",
    "random",
    "random_original",
    *BASELINES,
)
IDENTITY_ITEMS = 50
"""Items on which keep = 100 % is compared with the full model."""


@dataclass(frozen=True)
class Setting:
    """One line of the results: `make()` gives the method, and may refuse with a `FoveateError`.

    role: "control", "method" or "curve". pictures: "seen", "mean colour", or "grouped" by how many
    evidence tokens they hold. items: how many are asked, None for all.
    """

    name: str
    role: str
    keep: float | None
    make: Callable[[], Method] = field(compare=False, repr=False)
    seed: int | None = None
    k: int | None = None
    pictures: str = "seen"
    items: int | None = None

    @property
    def key(self) -> tuple:
        """What tells settings of one task apart."""
        return self.name, self.keep, self.seed, self.k


def chosen(methods: Sequence[str | Method] | str | None, full: bool = False) -> dict[str, Method]:
    """Methods by their name in the tables. None takes the default ones, "all" every available one.

    A `Method` in place of a slug brings its own parameters; its `keep` is the bench's to set.
    """
    known = registered()
    if methods is None:
        methods = "all" if full else [slug for slug in METHODS if slug in known]
    if methods == "all":
        methods = [s for s, c in known.items() if s not in CONTROLS and c.bare == Method.bare]
    if isinstance(methods, str):
        methods = [methods]
    found: dict[str, Method] = {}
    for method in methods:
        if isinstance(method, Method):
            plain = replace(method, keep=type(method)().keep)
            found[method.slug if plain == type(method)() else repr(plain)] = method
        elif method in CONTROLS:
            continue
        elif method not in known:
            raise unknown_method(method, [*known, "all"])
        else:
            found[method] = create(method)
    return found


def shares(keep: Sequence[float | int] | None, tokens: int) -> tuple[float, ...]:
    """Shares of `tokens`, largest first, always with 1.0; counts become shares."""
    asked = [check_keep(k) for k in (KEEPS if keep is None else keep)]
    for k in asked:
        if isinstance(k, int) and k > tokens:
            raise BenchError(
                f"keep={k} asks for more than the {tokens} visual tokens of this model; use less."
            )
    made = {k / tokens if isinstance(k, int) else k for k in asked}
    return tuple(sorted({*made, 1.0}, reverse=True))


def plan(
    methods: dict[str, Method],
    keeps: Sequence[float],
    layers: int,
    task: str,
    spotlight: EvidenceBoxes,
    identity: int | None = IDENTITY_ITEMS,
) -> list[Setting]:
    """All settings of one task, controls first, so that an interrupted run has its scale."""
    made = [
        Setting("full", "control", 1.0, Composed),
        Setting("blind", "control", None, Composed, pictures="mean colour"),
        Setting(
            "anti_oracle", "control", None, partial(EvidenceRemoved, spotlight=spotlight), None,
            None, "grouped",
        ),
    ]  # fmt: skip
    makers: dict[str, tuple[str, Any]] = {
        "oracle": (
            "control",
            partial(Oracle, spotlight=spotlight, background=task in COUNTING),
        ),
        "random": ("control", partial(create, "random")),
        "random_original": ("control", partial(create, "random", positions="original")),
        **{slug: ("control", partial(create, slug)) for slug in BASELINES},
        **{name: ("method", partial(replace, method)) for name, method in methods.items()},
    }
    for keep in sorted(keeps, reverse=True):
        for name, (role, maker) in makers.items():
            items = identity if keep == 1 else None
            if name == "random" and keep < 1:
                for seed in SEEDS:
                    made.append(
                        Setting(name, role, keep, partial(maker, keep=keep, seed=seed), seed)
                    )
            else:
                seed = 0 if name.startswith("random") else None
                make = partial(maker, keep=keep)
                made.append(Setting(name, role, keep, make, seed, items=items))
    for k in range(layers):
        made.append(Setting("late_blind", "curve", None, partial(DropAllTokens, k=k), k=k))
    return made
