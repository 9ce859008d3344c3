"""Checks and converts the values of dataclass fields by their type annotations.

Scalars of numpy and torch become Python numbers, and lists become tuples. A value that the
annotation does not allow is refused.
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
# Order in which the members of a union are tried. Without it True would be an int, 1 a float.
_ORDER = {NoneType: 0, bool: 1, int: 2, float: 3}
# Integers beyond int64 fit neither a tensor nor the seed of a generator.
_INTS = range(-(2**63), 2**63)


def scalar(value: Any) -> Any:
    """`value` as a Python number where it is a single number of numpy, torch or similar."""
    held = _listed(value)
    if held is value:
        return value
    while isinstance(held, list) and len(held) == 1:
        held = held[0]
    return value if isinstance(held, list) else held


def as_declared(name: str, value: Any, declared: Any) -> Any:
    """`value` converted to the declared type; raises `InvalidParameter` where it does not fit.

    Args:
        name: Name of the parameter, for the message.
        value: The value.
        declared: bool, int, float, str, None, Literal, tuples and unions of these, or Callable.
            Values of any other type are returned unchanged, so that methods may have fields of
            their own classes.
    """
    found = _fit(value, declared)
    if found is _MISFIT:
        raise InvalidParameter(
            f"{name}={shown(value)} is not a valid value; use {allowed_values(declared)}."
        )
    return found


def normalise(instance: Any, *spared: str) -> None:
    """Convert every field of a dataclass, frozen or not, to its declared type.

    Args:
        instance: The dataclass instance, changed in place.
        spared: Names of fields to leave unchanged.
    """
    for name, declared in declared_fields(type(instance)).items():
        given = getattr(instance, name)
        value = given if name in spared else as_declared(name, given, declared)
        if value is not given:
            object.__setattr__(instance, name, value)


@cache
def declared_fields(cls: type) -> dict[str, Any]:
    """Fields of a dataclass and their types; `Any` where an annotation can't be resolved."""
    try:
        hints = get_type_hints(cls)
    except Exception:
        # A class defined inside a function may use names that are local to that function.
        hints = {f.name: _resolved(cls, f.name) for f in fields(cls)}
    return {field.name: hints.get(field.name, Any) for field in fields(cls) if field.init}


def allowed_values(declared: Any, several: bool = False) -> str:
    """The values that a declared type allows, in words for an error message.

    Args:
        declared: The type.
        several: Use the plural.
    """
    if declared in _WORDS:
        one, many = _WORDS[declared]
        return many if several else one
    origin, arguments = get_origin(declared), get_args(declared)
    if origin in (Union, UnionType, Literal):
        words = [repr(a) if origin is Literal else allowed_values(a, several) for a in arguments]
        return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    if origin in (tuple, Sequence):
        tuples = "tuples" if several else "a tuple"
        if origin is Sequence or arguments[-1] is Ellipsis:
            return f"{tuples} of {allowed_values(arguments[0], True)}"
        if len({*arguments}) == 1:
            return f"{tuples} of {len(arguments)} {allowed_values(arguments[0], True)}"
        return f"{tuples} of {' and '.join(map(allowed_values, arguments))}"
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
    """Arrays and scalars of numpy, torch and similar libraries as lists and numbers."""
    tolist = getattr(value, "tolist", None)
    if not callable(tolist) or isinstance(value, type):
        return value
    try:
        return tolist()
    except Exception:
        # A tensor without data, for example on the meta device.
        return value


def _fit(value: Any, declared: Any) -> Any:
    """The converted value, or `_MISFIT` where the declared type does not allow it."""
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
    # str() of a member of a string enumeration would give its name instead of its value.
    return str.__str__(value) if isinstance(value, str) else _MISFIT


_SCALARS: dict[type, Any] = {
    bool: lambda value: value if isinstance(value, bool) else _MISFIT,
    int: _int,
    float: _float,
    str: _str,
    NoneType: lambda value: value if value is None else _MISFIT,
}


def _resolved(cls: type, name: str) -> Any:
    """The type of one field; `Any` where a name in its annotation can't be found."""
    owner = next(c for c in cls.__mro__ if name in c.__dict__.get("__annotations__", {}))
    kind = owner.__annotations__[name]
    if not isinstance(kind, str):
        return kind
    try:
        return eval(kind, vars(sys.modules[owner.__module__]), dict(vars(owner)))
    except Exception:
        return Any
