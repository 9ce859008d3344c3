"""`TrainedMethod`: a method with trained parts, and where the weights of these parts come from.

Weights live in folders of their own (`parts.safetensors` and `parts.json`), beside the base model
and never inside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

import foveate
from foveate.errors import FoveateError, InvalidParameter, MissingWeights, UnknownName, shown
from foveate.method import Method, create, method_class

WEIGHTS, CONFIG = "parts.safetensors", "parts.json"
RANDOM = "random"
SHIPPED = Path(__file__).parent / "methods" / "weights"

_lent: ContextVar[dict[str, nn.Module] | None] = ContextVar("lent", default=None)


@dataclass(frozen=True, kw_only=True)
class TrainedMethod(Method):
    """A method with learned modules, which are trained for one base model.

    Attributes:
        weights: a folder written by `save_pretrained`, or the name of a shipped set such as "nano";
            None uses the shipped set that fits the model; "random" or "random:SEED" uses untrained
            modules.
    """

    trained: ClassVar[bool] = True
    # Facts of the base model that the parts depend on, and the fields that size them: fields say
    # how new parts are made, trained ones bring their own, apart from fields that must agree.
    facts: ClassVar[tuple[str, ...]] = ("width", "layers")
    shapes: ClassVar[tuple[str, ...]] = ()
    agreed: ClassVar[tuple[str, ...]] = ()

    weights: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _seed(self.weights)

    def build(self, **base: int) -> nn.Module:
        """New, untrained parts for a base model of these `facts`."""
        raise NotImplementedError

    def check(self, **base: int) -> None:
        """Raise `MissingWeights` where no parts fit this base model, or `InvalidParameter` where
        those that do were trained with other parameters."""
        if self.slug not in (_lent.get() or {}):
            source, _ = self._source({name: base[name] for name in self.facts})
            if isinstance(source, Path):
                _agreeing(type(self), source, self._shape())

    def module(self, like: Tensor, **base: int) -> Any:
        """The parts for hidden states (..., width), on their device and in their dtype.

        base: the other `facts` of the model. Loaded once, and shared by all that ask for the same.
        """
        lent = (_lent.get() or {}).get(self.slug)
        if lent is not None:
            return lent
        base = {"width": like.shape[-1], **base}
        source, stamp = self._source(base)
        shape = self._shape()
        facts = tuple(sorted(base.items()))
        return _loaded(type(self), source, stamp, shape, facts, like.device, like.dtype)

    def _shape(self) -> tuple[tuple[str, Any], ...]:
        return tuple((name, getattr(self, name)) for name in self.shapes)

    def sized(self, **base: int) -> Self:
        """This method with the `shapes` of its parts for a base model of these facts."""
        if self.slug in (_lent.get() or {}):
            return self
        source, _ = self._source(base)
        if isinstance(source, str):
            return self
        return replace(self, **_shapes(type(self), _method_of(source)))

    def save_pretrained(self, folder: str | Path, **facts: Any) -> Path:
        """Write the parts that `weights` names, and these parameters; `from_pretrained` reads them.

        facts: what else the file shall say of how the parts came about.
        """
        if self.weights is None or _seed(self.weights) is not None:
            raise MissingWeights(
                f"weights={self.weights!r} names no trained parts to save; name a folder or a "
                "shipped set."
            )
        source = _named(self.slug, self.weights)
        config = read_config(source)
        module = _read(type(self), source, (), tuple(sorted(config["base"].items())))
        return save_parts(self, module, folder, config["base"], **{**config["made"], **facts})

    def _source(self, base: dict[str, int]) -> tuple[Path | str, int]:
        """The folder of the parts, or "random"; and what changes when they are trained anew."""
        seed = _seed(self.weights)
        if seed is not None:
            return RANDOM, seed
        if self.weights is None:
            return _fitting(self.slug, tuple(sorted(base.items()))), 0
        folder = _named(self.slug, self.weights)
        config = read_config(folder)
        if config["method"]["method"] != self.slug:
            raise MissingWeights(
                f"{str(folder)!r} holds parts of {config['method']['method']!r}, not of "
                f"{self.slug!r}; name another folder."
            )
        wrong = {k: v for k, v in base.items() if config["base"].get(k, v) != v}
        if wrong:
            raise MissingWeights(
                f"The parts in {str(folder)!r} were trained for {_told(config['base'])}, and this "
                f"base model has {_told(wrong)}; {_way_out(self.slug)}"
            )
        return folder, (folder / WEIGHTS).stat().st_mtime_ns


@contextmanager
def lent(slug: str, module: nn.Module) -> Iterator[None]:
    """While open, methods of this slug use `module`, as it is: what is in training."""
    token = _lent.set({**(_lent.get() or {}), slug: module})
    try:
        yield
    finally:
        _lent.reset(token)


def save_parts(
    method: Method, module: nn.Module, folder: str | Path, base: dict[str, Any], **made: Any
) -> Path:
    """Write trained parts and the method's parameters into `folder`.

    base: "name" and the facts of the base model. made: how the parts came about.
    """
    import transformers
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    # safetensors keeps files from other users of the machine, unlike all other writers.
    (folder / WEIGHTS).chmod(0o644)
    versions = {
        "foveate": foveate.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    config = {
        "method": {k: v for k, v in method.to_dict().items() if k != "weights"},
        "base": base,
        "made": {"versions": versions, **made},
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return folder


def from_pretrained(folder: str | Path) -> Method:
    """The method that `save_pretrained` wrote into a folder, with its trained parts."""
    if not isinstance(folder, str | os.PathLike):
        raise MissingWeights(
            f"{shown(folder)} is no folder; give the path of one that save_pretrained wrote."
        )
    folder = Path(folder).expanduser()
    told = _method_of(folder)
    return create(told.pop("method"), **told, weights=str(folder))


def read_config(folder: Path) -> dict[str, Any]:
    """What `save_pretrained` wrote beside the weights: "method", "base" and "made"."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return {"method": config["method"], "base": config["base"], "made": config["made"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MissingWeights(
            f"{str(folder)!r} holds no trained parts: its {CONFIG} can't be read "
            f"({type(error).__name__}); give a folder that save_pretrained wrote."
        ) from None


def shipped(slug: str) -> list[str]:
    """Names of the sets of trained parts that this installation has for a method."""
    return sorted(p.parent.name for p in (SHIPPED / slug).glob(f"*/{WEIGHTS}"))


def _method_of(folder: Path) -> dict[str, Any]:
    told = read_config(folder)["method"]
    return {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}


def _shapes(cls: type[TrainedMethod], told: dict[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in cls.shapes if name in told}


def _seed(weights: str | None) -> int | None:
    """Seed of untrained parts, None where `weights` names trained ones."""
    name, colon, seed = (weights or "").partition(":")
    if name != RANDOM:
        return None
    if colon and not seed.isdecimal():
        raise InvalidParameter(f"weights={weights!r} has no seed; write 'random:7'.")
    return int(seed or 0)


def _named(slug: str, weights: str) -> Path:
    """The folder that `weights` says."""
    if weights in shipped(slug):
        return SHIPPED / slug / weights
    folder = Path(weights).expanduser()
    if folder.is_dir():
        return folder
    if "/" in weights or weights.startswith((".", "~")):
        raise MissingWeights(f"There is no folder {weights!r}; check the path.")
    raise UnknownName.of(f"set of weights for {slug}", weights, [*shipped(slug), RANDOM])


@lru_cache(maxsize=256)
def _fitting(slug: str, base: tuple[tuple[str, int], ...]) -> Path:
    """The shipped set of a base model with these facts."""
    for name in shipped(slug):
        told = read_config(SHIPPED / slug / name)["base"]
        if all(told.get(fact) == value for fact, value in base):
            return SHIPPED / slug / name
    known = ", ".join(shipped(slug)) or "no model"
    raise MissingWeights(
        f"{slug} has trained parts for {known}, none for a base model of {_told(dict(base))}; "
        f"{_way_out(slug)}"
    )


def _told(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _way_out(slug: str) -> str:
    return (
        f"train them with 'foveate train --method {slug} --model DIR', or try untrained ones with "
        f"weights={RANDOM!r}."
    )


@lru_cache(maxsize=32)
def _loaded(
    cls: type[TrainedMethod],
    source: Path | str,
    stamp: int,
    shape: tuple[tuple[str, Any], ...],
    base: tuple[tuple[str, int], ...],
    device: torch.device,
    dtype: torch.dtype,
) -> nn.Module:
    if isinstance(source, str):
        module = untrained(cls(weights=RANDOM, **dict(shape)), stamp, **dict(base))
    else:
        module = _read(cls, source, shape, base)
    return module.to(device, dtype).eval().requires_grad_(False)


def untrained(method: TrainedMethod, seed: int, **base: Any) -> nn.Module:
    """Parts as `build` makes them, from this seed alone. base: the method's `facts`, and others."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return method.build(**{name: base[name] for name in method.facts})


def _read(
    cls: type[TrainedMethod],
    folder: Path,
    shape: tuple[tuple[str, Any], ...],
    base: tuple[tuple[str, int], ...],
) -> nn.Module:
    from safetensors.torch import load_file

    saved = _agreeing(cls, folder, shape)
    module = untrained(cls(weights=RANDOM, **saved), 0, **dict(base))
    try:
        module.load_state_dict(load_file(folder / WEIGHTS))
    except Exception as error:
        # safetensors raises an error of its own, torch a RuntimeError over many lines.
        first = " ".join(str(error).split())[:200]
        raise MissingWeights(
            f"The trained parts in {str(folder)!r} can't be loaded ({first}); save them again."
        ) from None
    return module


def _agreeing(
    cls: type[TrainedMethod], folder: Path, shape: tuple[tuple[str, Any], ...]
) -> dict[str, Any]:
    """The `shapes` of the parts in a folder; `InvalidParameter` where others were asked for."""
    saved = _shapes(cls, _method_of(folder))
    defaults = {field.name: field.default for field in fields(cls)}
    for name, value in shape:
        own = saved.get(name, value)
        if value != own and (name in cls.agreed or value != defaults[name]):
            raise InvalidParameter(
                f"{name}={value!r}, but the parts in {str(folder)!r} were trained with "
                f"{saved[name]!r}; set it so, or train anew."
            )
    return saved


def release() -> None:
    """Let go of all parts that were loaded; whoever needs them again loads them again."""
    _loaded.cache_clear()


def trained_class(slug: str) -> type[TrainedMethod]:
    """The class of a method that has trained parts."""
    cls = method_class(slug)
    if not issubclass(cls, TrainedMethod):
        raise FoveateError(f"{slug} has no trained parts; it runs on any model as it is.")
    return cls
