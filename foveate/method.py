"""`Method`: one published system as a frozen dataclass, its registry, and composition with `+`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from foveate.budget import ADAPTIVE, Keep, check_keep
from foveate.errors import BudgetError, FoveateError, InvalidParameter, UnknownName
from foveate.parts import POSITIONS, STAGES, Part
from foveate.tokens import Grid

_registry: dict[str, type[Method]] = {}
M = TypeVar("M", bound="type[Method]")


@dataclass(frozen=True, kw_only=True)
class Method:
    """A system from a paper: its hyper-parameters as fields, its rule as one or more parts.

    keep: tokens that survive per visual item; an int counts, a float in (0, 1] is a share.
    positions: "original" leaves the gaps of dropped tokens in the position ids, "packed" renumbers.

    Class attributes: reduces is False where every token stays and only the way in which layers
    compute changes; `keep` is 1.0 then. adaptive is True where `keep` may be "adaptive". bare:
    parameters under which the model is the bare one.
    """

    slug: ClassVar[str]
    paper: ClassVar[str] = ""
    trained: ClassVar[bool] = False
    prompt_agnostic: ClassVar[bool] = True
    reduces: ClassVar[bool] = True
    adaptive: ClassVar[bool] = False
    bare: ClassVar[Mapping[str, Any]] = MappingProxyType({"keep": 1.0})

    keep: Keep = 1.0
    positions: str = "original"

    def __post_init__(self) -> None:
        if not (self.adaptive and self.keep == ADAPTIVE):
            check_keep(self.keep)
        if not self.reduces and not (isinstance(self.keep, float) and self.keep == 1):
            raise BudgetError(
                f"keep={self.keep!r} is no budget of {type(self).__name__}, which changes how "
                "layers attend and keeps every token; leave keep=1.0, and add a method that "
                "reduces with +."
            )
        if self.positions not in POSITIONS:
            raise InvalidParameter(
                f"positions={self.positions!r} is no rule; use 'original' or 'packed'."
            )

    def parts(self) -> tuple[Part, ...]:
        """The parts of this method, in any order; the engine runs them in road order."""
        return (self,) if isinstance(self, Part) else ()

    def check(self, **base: int) -> None:
        """Called by `attach` with facts of the base model ("width", "layers"): refuse it here."""

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages at which this method acts, in road order."""
        return tuple(s for s in STAGES if any(p.stage == s for p in self.parts()))

    def budget(self, grid: Grid) -> int:
        """Tokens that enter the language model for such an item, known without any feature."""
        n = grid.n
        for part in in_road_order(self.parts()):
            count = getattr(part, "count", None)
            if count is not None:
                n = count(grid if n == grid.n else Grid(1, 1, n))
        return n

    def to_dict(self) -> dict[str, Any]:
        """Slug and parameters as plain values; `from_dict` makes an equal method."""
        return {"method": self.slug, **{f.name: getattr(self, f.name) for f in fields(self)}}

    def __repr__(self) -> str:
        changed = (
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if f.default is MISSING or getattr(self, f.name) != f.default
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    def __add__(self, other: Method) -> Composed:
        return Composed(methods=(*_flat(self), *_flat(other)))


@dataclass(frozen=True, repr=False)
class Composed(Method):
    """Several methods on one model; their parts run in road order, equal stages as written."""

    slug = "composed"
    methods: tuple[Method, ...] = ()

    def parts(self) -> tuple[Part, ...]:
        return tuple(part for m in self.methods for part in m.parts())

    def check(self, **base: int) -> None:
        for method in self.methods:
            method.check(**base)

    @property
    def prompt_agnostic(self) -> bool:  # type: ignore[override]
        """True when every member is."""
        return all(m.prompt_agnostic for m in self.methods)

    def to_dict(self) -> dict[str, Any]:
        return {"methods": [m.to_dict() for m in self.methods]}

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.methods))


def _flat(method: Method) -> tuple[Method, ...]:
    return method.methods if isinstance(method, Composed) else (method,)


def in_road_order(parts: tuple[Part, ...]) -> list[Part]:
    """Parts sorted by stage; parts of one stage keep their order."""
    return sorted(parts, key=lambda part: STAGES.index(part.stage))


def register(cls: M) -> M:
    """Class decorator: make a method known under its `slug`."""
    if _registry.get(cls.slug, cls).__qualname__ != cls.__qualname__:
        raise FoveateError(f"Two methods call themselves {cls.slug!r}; rename one of them.")
    if cls.__repr__ is not Method.__repr__:
        cls.__repr__ = Method.__repr__  # type: ignore[method-assign]
    _registry[cls.slug] = cls
    return cls


@cache
def _load() -> None:
    import foveate.methods as package

    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    for point in entry_points(group="foveate.methods"):
        point.load()


def registered() -> dict[str, type[Method]]:
    """All methods by slug: those of the package and those of entry points `foveate.methods`."""
    _load()
    return dict(sorted(_registry.items()))


def method_class(slug: str) -> type[Method]:
    """The class of one method; `UnknownName` with the nearest slug where there is none."""
    known = registered()
    if slug not in known:
        raise UnknownName.of("method", slug, known)
    return known[slug]


def create(slug: str, **parameters: Any) -> Method:
    """A method by its slug, with keyword parameters: `create("divprune", keep=64)`."""
    cls = method_class(slug)
    names = [f.name for f in fields(cls)]
    for name in parameters:
        if name not in names:
            raise UnknownName.of(f"parameter of {slug}", name, names)
    return cls(**parameters)


def from_dict(data: dict[str, Any]) -> Method:
    """The method that `to_dict` described."""
    if "methods" in data:
        return Composed(methods=tuple(map(from_dict, data["methods"])))
    data = dict(data)
    try:
        slug = data.pop("method")
    except KeyError:
        raise FoveateError("A method's description needs a 'method' or 'methods' entry.") from None
    lists = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return create(slug, **lists)


def class_names() -> Iterator[tuple[str, type[Method]]]:
    """Pairs of class name and class, for the face of the package."""
    return ((cls.__name__, cls) for cls in registered().values())
