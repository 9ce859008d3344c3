"""From what is typed behind `--method`, `--keep` and `--set` to a method, or to a recipe."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from foveate.budget import Keep, check_keep
from foveate.errors import BudgetError, FoveateError, InvalidParameter, UnknownName
from foveate.method import Composed, Method, create, method_class


def parse_keep(text: str) -> Keep:
    """ "64" is a count, "0.25" and "25%" are shares."""
    typed = text.strip()
    try:
        if typed.endswith("%"):
            return check_keep(float(typed[:-1]) / 100)
        return check_keep(int(typed) if typed.lstrip("+-").isdecimal() else float(typed))
    except BudgetError:
        raise
    except ValueError:
        raise BudgetError(
            f"keep={text!r} is no budget; use a count such as 64 or a share such as 0.25 or 25%."
        ) from None


def build_method(method: str | None, keep: str | None, settings: Sequence[str]) -> Method:
    """The method that the options describe; without `--method` one that changes nothing.

    method: a slug, or several joined by "+". keep: given to every member. settings: "name=value";
    with several members "slug.name=value" says which one is meant.
    """
    if method is None:
        if keep is not None or settings:
            raise FoveateError("--keep and --set belong to a method; name one with --method.")
        return Composed()
    slugs = [slug.strip() for slug in method.split("+")]
    parameters: dict[str, dict[str, Any]] = {slug: {} for slug in slugs}
    for slug in slugs:
        method_class(slug)
        if keep is not None:
            parameters[slug]["keep"] = parse_keep(keep)
    for setting in settings:
        slug, name, value = _parse(setting, slugs)
        parameters[slug][name] = value
    made = [create(slug, **parameters[slug]) for slug in slugs]
    return made[0] if len(made) == 1 else Composed(methods=tuple(made))


def parameters_of(cls: type, what: str, settings: Sequence[str]) -> dict[str, Any]:
    """Parameters of a dataclass as "name=value" says; `what` is how messages call it."""
    types, parameters = _types(cls), {}
    for setting in settings:
        name, text = _split(setting)
        if name not in types:
            raise UnknownName.of(f"parameter of {what}", name, types)
        parameters[name] = _value(name, text, types[name])
    return parameters


def _split(setting: str) -> tuple[str, str]:
    """Name and text of one `--set`."""
    left, equals, text = setting.partition("=")
    if not equals or not left.strip():
        raise InvalidParameter(f"--set {setting!r} is no setting; write name=value.")
    return left.strip(), text.strip()


def _parse(setting: str, slugs: list[str]) -> tuple[str, str, Any]:
    """Slug, parameter name and value of one `--set`."""
    left, text = _split(setting)
    slug, dot, name = left.rpartition(".")
    if dot and slug not in slugs:
        raise UnknownName.of("method in --method", slug, slugs)
    owners = [slug] if dot else [s for s in slugs if name in _types(method_class(s))]
    if not owners:
        known = [n for s in slugs for n in _types(method_class(s))]
        raise UnknownName.of(f"parameter of {' + '.join(slugs)}", name, known)
    if len(owners) > 1:
        raise InvalidParameter(
            f"--set {setting!r} could mean {' or '.join(owners)}; write {owners[0]}.{setting}."
        )
    types = _types(method_class(owners[0]))
    if name not in types:
        raise UnknownName.of(f"parameter of {owners[0]}", name, types)
    if name == "keep":
        return owners[0], name, parse_keep(text)
    return owners[0], name, _value(name, text, types[name])


def _types(cls: type) -> dict[str, Any]:
    """Parameters of a dataclass with their declared types."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def _value(name: str, text: str, declared: Any) -> Any:
    """The typed text as a value of the declared type."""
    allowed = get_args(declared) if isinstance(declared, UnionType) else (declared,)
    if text.lower() in ("none", "null") and NoneType in allowed:
        return None
    if bool in allowed and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if str in allowed:
        return text
    value = _literal(text)
    if any(get_origin(kind) is tuple for kind in allowed) and value is not None:
        return tuple(value) if isinstance(value, tuple | list) else (value,)
    if type(value) is int and int not in allowed and float in allowed:
        return float(value)
    kinds = [kind for kind in allowed if kind in _KINDS]
    if type(value) in kinds or (kinds == [] and value is not None):
        return value
    wanted = " or ".join(_KINDS[kind] for kind in kinds) or "a value such as 3, 0.5 or (1, 2)"
    raise InvalidParameter(f"--set {name}={text} is of the wrong kind; give {wanted}.")


def _literal(text: str) -> Any:
    """A number or a tuple of numbers as Python writes them, None for anything else."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}
