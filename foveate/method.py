"""`Method`: one published system as a frozen dataclass, its registry, and composition with `+`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from foveate.budget import ADAPTIVE, BEFORE_LLM, Keep, check_keep
from foveate.errors import BudgetError, FoveateError, InvalidParameter, UnknownName, shown
from foveate.parameters import as_declared, normalise, scalar
from foveate.parts import POSITIONS, STAGES, Part, grid_after
from foveate.systems import SystemRow, systems
from foveate.tokens import Grid

_registry: dict[str, type[Method]] = {}
M = TypeVar("M", bound="type[Method]")


@dataclass(frozen=True, kw_only=True)
class Method:
    """A system from a paper: its hyper-parameters as fields, its rule as one or more parts.

    Attributes:
        keep: tokens to keep per visual item; an int is a count, a float in (0, 1] a retention
            ratio (tokens out / tokens in). A visual item is an image or video; InternVL counts
            each tile of an image, Idefics3 and SmolVLM all images of a prompt.
        positions: position ids after tokens are dropped. "original" leaves gaps, "packed" renumbers
            the tokens that remain, "native" is "original" in models with M-RoPE and "packed" in all
            others.
    """

    slug: ClassVar[str]
    paper: ClassVar[str] = ""
    # Whether the method has learned modules, or needs a model that was tuned with it.
    trained: ClassVar[bool] = False
    # Whether the same tokens are kept for every prompt.
    prompt_agnostic: ClassVar[bool] = True
    # Not prompt-agnostic, but with causal attention a question after the image changes nothing.
    text_before_image_only: ClassVar[bool] = False
    # What `keep` counts: a phrase of `foveate.budget`, or one of the method's own.
    keep_means: ClassVar[str] = BEFORE_LLM
    # False where every token is kept and only the computation in layers changes; keep is 1.0 then.
    reduces: ClassVar[bool] = True
    # Whether keep may be "adaptive".
    adaptive: ClassVar[bool] = False
    # Parameters with which the model is the full one.
    bare: ClassVar[Mapping[str, Any]] = MappingProxyType({"keep": 1.0})
    # By slug, methods that keep the same tokens as this one in some settings, and why.
    coincides: ClassVar[Mapping[str, str]] = MappingProxyType({})

    keep: Keep = 1.0
    positions: str = "native"

    def __post_init__(self) -> None:
        keep = scalar(self.keep)
        if not (self.adaptive and isinstance(keep, str) and keep == ADAPTIVE):
            keep = check_keep(keep)
        object.__setattr__(self, "keep", keep)
        normalise(self, "keep")
        if not self.reduces and not (isinstance(self.keep, float) and self.keep == 1):
            raise BudgetError(
                f"keep={self.keep!r} is not valid: {type(self).__name__} changes attention and "
                "keeps every token; leave keep=1.0, and add a method that drops tokens with +."
            )
        if self.positions not in POSITIONS:
            raise InvalidParameter(
                f"positions={self.positions!r} is not valid: use 'native', 'original' or 'packed'."
            )

    def parts(self) -> tuple[Part, ...]:
        """The parts of this method, in any order; the engine runs them in the order of the data."""
        return (self,) if isinstance(self, Part) else ()

    def check(self, **base: int) -> None:
        """Raise where the method does not fit a model; base: its "width" and "layers"."""

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages at which this method acts, in the order of the data."""
        return tuple(s for s in STAGES if any(p.stage == s for p in self.parts()))

    def budget(self, grid: Grid) -> int:
        """Tokens that enter the LLM for an image or video of this grid, without running a model."""
        if not isinstance(grid, Grid):
            raise InvalidParameter(
                f"{shown(grid)} is not a grid; use one such as foveate.tokens.Grid(1, 24, 24)."
            )
        for name in ("t", "h", "w"):
            as_declared(name, getattr(grid, name), int)
        if min(grid.t, grid.h, grid.w) < 1:
            raise InvalidParameter(f"{grid} has no tokens; use t, h and w of at least 1.")
        return grid_after(in_road_order(self.parts()), grid).n

    def to_dict(self) -> dict[str, Any]:
        """Slug and parameters as plain values, which `from_dict` turns into an equal method."""
        return {"method": self.slug, **{f.name: getattr(self, f.name) for f in fields(self)}}

    def __repr__(self) -> str:
        changed = (
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if f.default is MISSING or getattr(self, f.name) != f.default
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    def __add__(self, other: Method | str) -> Composed:
        return Composed(methods=(self, as_method(other)))

    def __radd__(self, other: Method | str) -> Composed:
        # Only reached when `other` is not a method, such as the 0 that `sum` starts with.
        return Composed(methods=(as_method(other), self))


@dataclass(frozen=True, repr=False)
class Composed(Method):
    """Several methods on one model; parts run in the order of the data, equal stages as written."""

    slug = "composed"
    methods: tuple[Method, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep != 1 or self.positions != "native":
            raise InvalidParameter(
                f"keep={self.keep}, positions={self.positions!r} are not valid for a composition; "
                "give them to its methods."
            )
        members = tuple(member for m in self.methods for member in _flat(as_method(m)))
        object.__setattr__(self, "methods", members)

    def parts(self) -> tuple[Part, ...]:
        return tuple(part for m in self.methods for part in m.parts())

    def check(self, **base: int) -> None:
        for method in self.methods:
            method.check(**base)

    @property
    def prompt_agnostic(self) -> bool:  # type: ignore[override]
        """Whether every method of the composition is."""
        return all(m.prompt_agnostic for m in self.methods)

    def to_dict(self) -> dict[str, Any]:
        return {"methods": [m.to_dict() for m in self.methods]}

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.methods))


def _flat(method: Method) -> tuple[Method, ...]:
    return method.methods if isinstance(method, Composed) else (method,)


def in_road_order(parts: tuple[Part, ...]) -> list[Part]:
    """Parts sorted by stage, in the order of the data; parts of one stage keep their order."""
    return sorted(parts, key=lambda part: STAGES.index(part.stage))


def register(cls: M) -> M:
    """Class decorator: register a method under its `slug`."""
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise FoveateError(
            f"{shown(cls)} is not a method class; decorate a subclass of foveate.Method."
        )
    if not isinstance(getattr(cls, "slug", None), str):
        raise FoveateError(f"{cls.__name__} has no slug; give the class one: slug = 'its_name'.")
    if _registry.get(cls.slug, cls).__qualname__ != cls.__qualname__:
        raise FoveateError(f"Two methods have the slug {cls.slug!r}; rename one of them.")
    if cls.__repr__ is not Method.__repr__:
        cls.__repr__ = Method.__repr__  # type: ignore[method-assign]
    _registry[cls.slug] = cls
    return cls


@cache
def _load() -> None:
    package = importlib.import_module("foveate.methods")

    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    for point in entry_points(group="foveate.methods"):
        point.load()


def registered() -> dict[str, type[Method]]:
    """All methods by slug: those of the package and those of entry points `foveate.methods`."""
    _load()
    return dict(sorted(_registry.items()))


def method_class(slug: str) -> type[Method]:
    """The class of a method; `UnknownName` with the nearest slug if there is none."""
    if not isinstance(slug, str):
        raise InvalidParameter(
            f"{shown(slug)} is not the slug of a method; use a string such as 'divprune'."
        )
    known = registered()
    if slug in known:
        return known[slug]
    if "+" not in slug:
        raise unknown_method(slug, known)
    members = [member.strip() for member in slug.split("+")]
    planned = [m for m in members if (row := _row(m)) is not None and row.slug not in known]
    if planned:
        raise unknown_method(planned[0], known)
    calls = " + ".join(f"foveate.create({member!r})" for member in members)
    raise UnknownName(f"{slug!r} is not the slug of one method; compose methods with {calls}.")


def unknown_method(slug: str, known: Iterable[str], kind: str = "method") -> UnknownName:
    """The error for a `slug` outside `known`, which says so if the system is planned.

    Args:
        slug: the name that was asked for: a slug, or the name of a system or class.
        known: the names that are accepted.
        kind: what `slug` should have named, for the message.
    """
    known, named = list(known), {_plain(cls.__name__): s for s, cls in registered().items()}
    row = _row(slug)
    meant = row.slug if row is not None else named.get(_plain(slug))
    if meant != slug and meant in known:
        return UnknownName(f"Unknown {kind}: {slug!r}; did you mean {meant!r}?")
    if row is None or row.slug in registered():
        return UnknownName.of(kind, slug, known)
    return UnknownName(
        f"{slug!r} ({row.name}, {row.paper}) is planned, not available yet; "
        "`foveate methods` lists the available methods."
    )


def _row(name: str) -> SystemRow | None:
    """The published system with this slug or name; capitals and punctuation do not matter."""
    rows = systems()
    if name in rows:
        return rows[name]
    plain = _plain(name)
    return next((r for r in rows.values() if plain in (_plain(r.slug), _plain(r.name))), None)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def create(slug: str, **parameters: Any) -> Method:
    """A method by its slug, with keyword parameters: `create("divprune", keep=64)`."""
    cls = method_class(slug)
    names = [f.name for f in fields(cls)]
    for name in parameters:
        if name not in names:
            raise UnknownName.of(f"parameter of {slug}", name, names)
    return cls(**parameters)


def as_method(method: Any, **parameters: Any) -> Method:
    """The method itself, or the method of a slug with `parameters`; anything else is refused."""
    if isinstance(method, str):
        return create(method, **parameters)
    if isinstance(method, Method):
        if parameters:
            raise InvalidParameter(
                f"{next(iter(parameters))}= is for methods given by slug, such as 'divprune'; "
                f"{method!r} is a method already, so set its parameters when you create it."
            )
        return method
    if isinstance(method, type) and issubclass(method, Method):
        name = method.__name__
        raise InvalidParameter(f"{name} is a class, not a method; pass an instance: {name}().")
    if isinstance(method, Mapping):
        advice = "convert it with foveate.from_dict(...)"
    elif isinstance(method, list | tuple):
        advice = "compose several methods with +"
    else:
        advice = "use one such as foveate.DivPrune(keep=64), and + to compose several"
    raise InvalidParameter(f"{shown(method)} is not a method; {advice}.")


def from_dict(data: Mapping[str, Any]) -> Method:
    """The method that `to_dict` described."""
    if not isinstance(data, Mapping):
        raise InvalidParameter(
            f"{shown(data)} is not the description of a method; use what to_dict() gives."
        )
    rest = dict(data)
    if "methods" in rest:
        methods = rest.pop("methods")
        if rest or not isinstance(methods, list | tuple):
            raise InvalidParameter(
                f"methods={shown(methods)} with {sorted(map(str, rest))} is not the description of "
                "a composition; use a list of descriptions under 'methods' and no other entry."
            )
        return Composed(methods=tuple(map(from_dict, methods)))
    try:
        slug = rest.pop("method")
    except KeyError:
        raise InvalidParameter(
            f"{shown(data)} has no method; give its slug under 'method', or a list of "
            "descriptions under 'methods'."
        ) from None
    return create(slug, **{str(name): value for name, value in rest.items()})


def class_names() -> Iterator[tuple[str, type[Method]]]:
    """Pairs of class name and class, for the names that the package exports."""
    return ((cls.__name__, cls) for cls in registered().values())
