"""The settings of a run: methods x retention ratios for every task, baselines and controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
"""Default methods: one of each kind, for a run of a few minutes."""

TITLES = {
    "blind": "constant-colour images",
    "anti_oracle": "evidence removed",
    "late_blind": "no visual tokens from layer k on",
}
"""Control names in stored rows that need an explanation."""

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
"""Items on which keep = 100 % is compared with the full model, unless all items are measured."""


@dataclass(frozen=True)
class Setting:
    """One setting of a run: a method or control at one retention ratio.

    Attributes:
        name: name in the tables.
        role: "control", "method" or "curve".
        keep: retention ratio; None for controls without one.
        make: makes the method; may raise `FoveateError`, which is stored as the reason.
        seed: seed of random token selection, None for deterministic methods.
        k: layer from which on no visual token is left, for the curve only.
        images: "original", "constant colour", or "by evidence": original images in batches with
            equally many evidence tokens.
        items: number of items; None for all.
    """

    name: str
    role: str
    keep: float | None
    make: Callable[[], Method] = field(compare=False, repr=False)
    seed: int | None = None
    k: int | None = None
    images: str = "original"
    items: int | None = None

    @property
    def key(self) -> tuple:
        """Identifies the setting among all settings of a task."""
        return self.name, self.keep, self.seed, self.k


def select_methods(
    methods: Sequence[str | Method] | str | None, full: bool = False
) -> dict[str, Method]:
    """Methods by their name in the tables.

    Args:
        methods: slugs, compositions such as "fastervlm+pyramiddrop", or methods with parameters,
            whose `keep` is replaced by the ratios of the run; "all" for every available method,
            None for the default ones.
        full: None stands for every available method too. Default False.
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
        elif method == "all":
            raise BenchError("'all' already contains every method: give it alone.")
        elif method not in CONTROLS:
            found[method.replace(" ", "")] = compose(method, [*known, "all"])
    return found


def compose(slugs: str, known: Iterable[str] | None = None) -> Method:
    """The method of a slug, or the composition of several slugs joined by "+"."""
    members = [slug.strip() for slug in slugs.split("+")]
    for slug in members:
        if slug not in registered():
            raise unknown_method(slug, registered() if known is None else known)
    made = [create(slug) for slug in members]
    return made[0] if len(made) == 1 else Composed(methods=tuple(made))


def with_keep(method: Method, keep: float | int) -> Method:
    """`method` with another budget; in a composition every member that reduces tokens gets it."""
    if isinstance(method, Composed):
        return Composed(methods=tuple(with_keep(member, keep) for member in method.methods))
    return replace(method, keep=keep) if method.reduces else method


def retention_ratios(keep: Sequence[float | int] | None, tokens: int) -> tuple[float, ...]:
    """Ratios of `tokens`, largest first, always with 1.0; counts become ratios."""
    asked = [check_keep(k) for k in (KEEPS if keep is None else keep)]
    for k in asked:
        if isinstance(k, int) and k > tokens:
            raise BenchError(
                f"keep={k} is more than the {tokens} visual tokens of this model: use "
                f"1 <= keep <= {tokens}."
            )
    made = {k / tokens if isinstance(k, int) else k for k in asked}
    return tuple(sorted({*made, 1.0}, reverse=True))


def plan(
    methods: dict[str, Method],
    keeps: Sequence[float],
    layers: int,
    task: str,
    evidence: EvidenceBoxes,
    identity: int | None = IDENTITY_ITEMS,
) -> list[Setting]:
    """All settings of one task, the baselines first: an interrupted run can be evaluated."""
    made = [
        Setting("full", "control", 1.0, Composed),
        Setting("blind", "control", None, Composed, images="constant colour"),
        Setting(
            "anti_oracle", "control", None, partial(EvidenceRemoved, evidence=evidence), None,
            None, "by evidence",
        ),
    ]  # fmt: skip
    makers: dict[str, tuple[str, Any]] = {
        "oracle": (
            "control",
            partial(Oracle, evidence=evidence, background=task in COUNTING),
        ),
        "random": ("control", partial(create, "random")),
        "random_original": ("control", partial(create, "random", positions="original")),
        **{slug: ("control", partial(create, slug)) for slug in BASELINES},
        **{name: ("method", partial(with_keep, method)) for name, method in methods.items()},
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
