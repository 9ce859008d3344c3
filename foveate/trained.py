"""`TrainedMethod`: a method with learned modules, and where their weights come from.

Weights are stored in folders with `parts.safetensors` and `parts.json`, separate from the base
model.
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
        weights: Folder written by `save_pretrained`, or name of a shipped set such as "nano". None
            uses the shipped set that fits the model. "random" or "random:SEED" uses untrained
            modules.
    """

    trained: ClassVar[bool] = True
    # facts: sizes of the base model that the modules depend on.
    # shapes: fields that determine the size of new modules. Trained modules use their saved values.
    # agreed: those of `shapes` that must equal the saved values.
    facts: ClassVar[tuple[str, ...]] = ("width", "layers")
    shapes: ClassVar[tuple[str, ...]] = ()
    agreed: ClassVar[tuple[str, ...]] = ()

    weights: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _seed(self.weights)

    def build(self, **base: int) -> nn.Module:
        """New, untrained modules for a base model with these `facts`."""
        raise NotImplementedError

    def check(self, **base: int) -> None:
        """Check that learned modules exist for this base model.

        Raises `MissingWeights` where none fit, and `InvalidParameter` where they were trained with
        other parameters.
        """
        if self.slug not in (_lent.get() or {}):
            source, _ = self._source({name: base[name] for name in self.facts})
            if isinstance(source, Path):
                _agreeing(type(self), source, self._shape())

    def module(self, like: Tensor, **base: int) -> Any:
        """The learned modules for hidden states (..., width), on their device and in their dtype.

        They are loaded once and shared.

        Args:
            like: Hidden states (..., width).
            **base: The other `facts` of the model.
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
        """This method with the `shapes` of the modules that fit a base model with these facts."""
        if self.slug in (_lent.get() or {}):
            return self
        source, _ = self._source(base)
        if isinstance(source, str):
            return self
        return replace(self, **_shapes(type(self), _method_of(source)))

    def save_pretrained(self, folder: str | Path, **facts: Any) -> Path:
        """Save the modules that `weights` names, with these parameters, for `from_pretrained`.

        Args:
            folder: Where to save.
            **facts: Further entries of the file on how the modules were trained.
        """
        if self.weights is None or _seed(self.weights) is not None:
            raise MissingWeights(
                f"weights={self.weights!r} has no learned weights to save; set weights to a folder "
                "or a shipped set."
            )
        source = _named(self.slug, self.weights)
        config = read_config(source)
        module = _read(type(self), source, (), tuple(sorted(config["base"].items())))
        return save_parts(self, module, folder, config["base"], **{**config["made"], **facts})

    def _source(self, base: dict[str, int]) -> tuple[Path | str, int]:
        """The folder of the weights, or "random"; and a stamp that changes with retraining."""
        seed = _seed(self.weights)
        if seed is not None:
            return RANDOM, seed
        if self.weights is None:
            return _fitting(self.slug, tuple(sorted(base.items()))), 0
        folder = _named(self.slug, self.weights)
        config = read_config(folder)
        if config["method"]["method"] != self.slug:
            raise MissingWeights(
                f"{str(folder)!r} has the weights of {config['method']['method']!r}, not of "
                f"{self.slug!r}; use another folder."
            )
        wrong = {k: v for k, v in base.items() if config["base"].get(k, v) != v}
        if wrong:
            raise MissingWeights(
                f"The weights in {str(folder)!r} were trained for a model with "
                f"{_listed(config['base'])}, but this model has {_listed(wrong)}; "
                f"{_way_out(self.slug)}"
            )
        return folder, (folder / WEIGHTS).stat().st_mtime_ns


@contextmanager
def lent(slug: str, module: nn.Module) -> Iterator[None]:
    """While open, methods with this slug use `module` itself. Training uses this."""
    token = _lent.set({**(_lent.get() or {}), slug: module})
    try:
        yield
    finally:
        _lent.reset(token)


def save_parts(
    method: Method, module: nn.Module, folder: str | Path, base: dict[str, Any], **made: Any
) -> Path:
    """Write learned modules and the method's parameters into `folder`.

    Args:
        method: The method.
        module: The learned modules.
        folder: Where to save.
        base: "name" and the facts of the base model.
        **made: How the modules were trained.
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
    """Load a method with its learned modules from a folder that `save_pretrained` wrote."""
    if not isinstance(folder, str | os.PathLike):
        raise MissingWeights(
            f"{shown(folder)} is not a path; pass the path of a folder that save_pretrained wrote."
        )
    folder = Path(folder).expanduser()
    told = _method_of(folder)
    return create(told.pop("method"), **told, weights=str(folder))


def read_config(folder: Path) -> dict[str, Any]:
    """The contents of `parts.json`: "method", "base" and "made"."""
    if not folder.is_dir():
        raise MissingWeights(f"There is no folder {str(folder)!r}; check the path.")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return {"method": config["method"], "base": config["base"], "made": config["made"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MissingWeights(
            f"{str(folder)!r} has no learned weights: {CONFIG} can't be read "
            f"({type(error).__name__}); use a folder that save_pretrained wrote."
        ) from None


def shipped(slug: str) -> list[str]:
    """Names of the weights that this installation has for a method."""
    return sorted(p.parent.name for p in (SHIPPED / slug).glob(f"*/{WEIGHTS}"))


def _method_of(folder: Path) -> dict[str, Any]:
    told = read_config(folder)["method"]
    return {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}


def _shapes(cls: type[TrainedMethod], told: dict[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in cls.shapes if name in told}


def _seed(weights: str | None) -> int | None:
    """Seed of untrained modules; None where `weights` names trained ones."""
    name, colon, seed = (weights or "").partition(":")
    if name != RANDOM:
        return None
    if colon and not seed.isdecimal():
        raise InvalidParameter(
            f"weights={weights!r} has no valid seed; use a whole number, as in 'random:7'."
        )
    return int(seed or 0)


def _named(slug: str, weights: str) -> Path:
    """The folder of `weights`."""
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
    """The shipped weights for a base model with these facts."""
    for name in shipped(slug):
        told = read_config(SHIPPED / slug / name)["base"]
        if all(told.get(fact) == value for fact, value in base):
            return SHIPPED / slug / name
    known = ", ".join(shipped(slug)) or "no model"
    raise MissingWeights(
        f"{slug} has learned weights for {known}, but none for a model with "
        f"{_listed(dict(base))}; {_way_out(slug)}"
    )


def _listed(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _way_out(slug: str) -> str:
    return (
        f"train them with 'foveate train --method {slug} --model DIR', or use untrained modules "
        f"with weights={RANDOM!r}."
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
    """New modules from `build`, determined by `seed`. base: the method's `facts`, and others."""
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
        # safetensors has its own error class; torch raises a RuntimeError with many lines.
        first = " ".join(str(error).split())[:200]
        raise MissingWeights(
            f"The weights in {str(folder)!r} can't be loaded ({first}); save them again."
        ) from None
    return module


def _agreeing(
    cls: type[TrainedMethod], folder: Path, shape: tuple[tuple[str, Any], ...]
) -> dict[str, Any]:
    """The saved `shapes` of a folder; `InvalidParameter` where the method asks for others."""
    saved = _shapes(cls, _method_of(folder))
    defaults = {field.name: field.default for field in fields(cls)}
    for name, value in shape:
        own = saved.get(name, value)
        if value != own and (name in cls.agreed or value != defaults[name]):
            raise InvalidParameter(
                f"{name}={value!r} does not match the weights in {str(folder)!r}, which were "
                f"trained with {name}={saved[name]!r}; use that value, or train again."
            )
    return saved


def release() -> None:
    """Free all loaded modules. They are loaded again when they are needed."""
    _loaded.cache_clear()


def trained_class(slug: str) -> type[TrainedMethod]:
    """The class of a method with learned modules."""
    cls = method_class(slug)
    if not issubclass(cls, TrainedMethod):
        raise FoveateError(f"{slug} has no learned weights; use it on any model without training.")
    return cls
