"""What a parameter may be: the annotations of a dataclass as the one rule for its values.

Numbers of numpy and torch become plain Python ones, lists become tuples, and everything else that
an annotation doesn't name is refused.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from foveate.errors import InvalidParameter, shown

_MISFIT: Any = object()
# Order in which the members of a union are asked: True is an int and 1 a float otherwise.
_ORDER = {NoneType: 0, bool: 1, int: 2, float: 3}
# What a generator's seed, a tensor and every serialiser can hold.
_INTS = range(-(2**63), 2**63)


def scalar(value: Any) -> Any:
    """`value` as a plain Python number where it is one number of numpy, torch or the like."""
    held = _listed(value)
    if held is value:
        return value
    while isinstance(held, list) and len(held) == 1:
        held = held[0]
    return value if isinstance(held, list) else held


def as_declared(name: str, value: Any, declared: Any) -> Any:
    """`value` as a plain Python value of the declared type, or `InvalidParameter`.

    declared: bool, int, float, str, None, Literal, tuples and unions of these, Callable. Anything
    else is taken as it is, so that methods may have fields of their own kinds.
    """
    found = _fit(value, declared)
    if found is _MISFIT:
        raise InvalidParameter(f"{name}={shown(value)} is not a valid value; use {told(declared)}.")
    return found


def normalise(instance: Any, *spared: str) -> None:
    """Make every field of a dataclass, also of a frozen one, a plain value of its declared type.

    spared: fields that are left as they are.
    """
    for name, declared in declared_fields(type(instance)).items():
        given = getattr(instance, name)
        value = given if name in spared else as_declared(name, given, declared)
        if value is not given:
            object.__setattr__(instance, name, value)


@cache
def declared_fields(cls: type) -> dict[str, Any]:
    """Fields of a dataclass with their types; Any where an annotation can't be resolved."""
    try:
        hints = get_type_hints(cls)
    except Exception:
        # A class made inside a function may name what only that function knows.
        hints = {f.name: _resolved(cls, f.name) for f in fields(cls)}
    return {field.name: hints.get(field.name, Any) for field in fields(cls) if field.init}


def told(declared: Any, several: bool = False) -> str:
    """What a declared type allows, in words: one of it, or several."""
    if declared in _WORDS:
        one, many = _WORDS[declared]
        return many if several else one
    origin, arguments = get_origin(declared), get_args(declared)
    if origin in (Union, UnionType, Literal):
        words = [repr(a) if origin is Literal else told(a, several) for a in arguments]
        return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    if origin in (tuple, Sequence):
        tuples = "tuples" if several else "a tuple"
        if origin is Sequence or arguments[-1] is Ellipsis:
            return f"{tuples} of {told(arguments[0], True)}"
        if len({*arguments}) == 1:
            return f"{tuples} of {len(arguments)} {told(arguments[0], True)}"
        return f"{tuples} of {' and '.join(map(told, arguments))}"
    if origin is Callable or declared is Callable:
        return "functions" if several else "a function"
    return getattr(declared, "__name__", str(declared))


_WORDS = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a finite number", "finite numbers"),
    str: ("a string", "strings"),
    NoneType: ("None", "None"),
    tuple: ("a tuple", "tuples"),
}


def _listed(value: Any) -> Any:
    """Arrays and scalars of numpy, torch and the like as lists and numbers."""
    tolist = getattr(value, "tolist", None)
    if not callable(tolist) or isinstance(value, type):
        return value
    try:
        return tolist()
    except Exception:
        # A tensor without data, as on the meta device.
        return value


def _fit(value: Any, declared: Any) -> Any:
    """The plain value, `_MISFIT` where the declared type doesn't allow it."""
    origin, arguments = get_origin(declared), get_args(declared)
    if origin in (Union, UnionType):
        kinds = sorted(arguments, key=lambda kind: _ORDER.get(kind, len(_ORDER)))
        return next((v for v in (_fit(value, k) for k in kinds) if v is not _MISFIT), _MISFIT)
    if origin is Literal:
        held = scalar(value)
        alike = (a for a in arguments if isinstance(held, str) or type(a) is type(held))
        return next((a for a in alike if a == held), _MISFIT)
    if declared is tuple or origin in (tuple, Sequence):
        return _tuple(value, origin, arguments)
    if origin is Callable or declared is Callable:
        return value if callable(value) else _MISFIT
    check = _SCALARS.get(declared) if isinstance(declared, type) else None
    return value if check is None else check(scalar(value))


def _tuple(value: Any, origin: Any, arguments: tuple) -> Any:
    held = _listed(value)
    if not isinstance(held, Sequence) or isinstance(held, str | bytes | bytearray | memoryview):
        return _MISFIT
    if not arguments:
        return tuple(map(_listed, held))
    if origin is Sequence or arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(held)
    if len(held) != len(arguments):
        return _MISFIT
    made = tuple(_fit(v, kind) for v, kind in zip(held, arguments, strict=True))
    return _MISFIT if any(v is _MISFIT for v in made) else made


def _int(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) not in _INTS:
        return _MISFIT
    return int(value)


def _float(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, Real):
        return _MISFIT
    try:
        number = float(value)
    except OverflowError:
        return _MISFIT
    return number if math.isfinite(number) else _MISFIT


def _str(value: Any) -> Any:
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    # A member of an enumeration of strings says its own name to str().
    return str.__str__(value) if isinstance(value, str) else _MISFIT


_SCALARS: dict[type, Any] = {
    bool: lambda value: value if isinstance(value, bool) else _MISFIT,
    int: _int,
    float: _float,
    str: _str,
    NoneType: lambda value: value if value is None else _MISFIT,
}


def _resolved(cls: type, name: str) -> Any:
    """The type of one field, Any where its annotation names what nobody finds."""
    owner = next(c for c in cls.__mro__ if name in c.__dict__.get("__annotations__", {}))
    kind = owner.__annotations__[name]
    if not isinstance(kind, str):
        return kind
    try:
        return eval(kind, vars(sys.modules[owner.__module__]), dict(vars(owner)))
    except Exception:
        return Any
