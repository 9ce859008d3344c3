"""Values of `--method`, `--keep` and `--set` to a method, or to the parameters of a recipe."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import UnionType
from typing import Any, Union, get_args, get_origin

from foveate.budget import Keep, check_keep
from foveate.errors import BudgetError, FoveateError, InvalidParameter, UnknownName, shown
from foveate.method import Composed, Method, create, method_class
from foveate.parameters import allowed_values, as_declared, declared_fields


def parse_keep(text: str) -> Keep:
    """ "64" is a number of tokens, "0.25" and "25%" are retention ratios."""
    typed = text.strip()
    try:
        if "_" in typed or not typed.isascii():
            # Python reads 1_0 as 10, and the digits of every script.
            raise ValueError
        if typed.endswith("%"):
            percent = float(typed[:-1])
            if not 0 < percent <= 100:
                raise BudgetError(
                    f"keep={typed} is not a valid ratio: use 0% < keep <= 100%, or an integer for "
                    "a number of tokens."
                )
            return check_keep(percent / 100)
        return check_keep(int(typed) if typed.lstrip("+-").isdecimal() else float(typed))
    except BudgetError:
        raise
    except ValueError:
        raise BudgetError(
            f"keep={text!r} is not a valid budget: use a number of tokens such as 64, or a ratio "
            "such as 0.25 or 25%."
        ) from None


def parse_list(text: str | None) -> list[str] | None:
    """ "a, b" is ["a", "b"]; None if the option is not given."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def build_method(method: str | None, keep: str | None, settings: Sequence[str]) -> Method:
    """The method that the options describe; the full model without `--method`.

    Args:
        method: a slug, or several joined by "+".
        keep: the budget of every member that has no `keep` in `settings`.
        settings: parameters as "name=value", or "slug.name=value" for one of several members.
    """
    if method is None:
        if keep is not None or settings:
            raise FoveateError("--keep and --set need a method: add --method.")
        return Composed()
    slugs = [slug.strip() for slug in method.split("+")]
    parameters: dict[str, dict[str, Any]] = {slug: {} for slug in slugs}
    for slug in slugs:
        method_class(slug)
        if keep is not None:
            parameters[slug]["keep"] = parse_keep(keep)
    for setting in settings:
        slug, name, value = _parse(setting, slugs)
        # In a composition `--set slug.keep` is the exception to `--keep`, which all members get.
        exception = name == "keep" and len(slugs) > 1
        if name in parameters[slug] and not exception:
            by = "--keep or --set keep" if name == "keep" else f"--set {name}"
            raise InvalidParameter(f"{name} of {slug} is given twice: use {by} once.")
        parameters[slug][name] = value
    made = [create(slug, **parameters[slug]) for slug in slugs]
    return made[0] if len(made) == 1 else Composed(methods=tuple(made))


def build_methods(
    methods: Sequence[str], keep: str | None, settings: Sequence[str]
) -> list[Method]:
    """One method per `--method`.

    Args:
        methods: as `build_method` takes one.
        keep: the budget of each of them.
        settings: "name=value" for each of them, "slug.name=value" for those with that slug.
    """
    every = [slug.strip() for method in methods for slug in method.split("+")]
    for setting in settings:
        slug = _addressee(setting)
        if slug and slug not in every:
            raise UnknownName.of("method in --method", slug, every)
    for setting in settings if len(methods) > 1 else ():
        _refuse_partial(setting, methods)
    built = []
    for method in methods:
        own = {slug.strip() for slug in method.split("+")}
        meant = [s for s in settings if not _addressee(s) or _addressee(s) in own]
        built.append(build_method(method, keep, meant))
    return built


def _refuse_partial(setting: str, methods: Sequence[str]) -> None:
    """Refuse "name=value" where only some of the methods have that parameter."""
    name, _ = _split(setting)
    owners = {
        method: [s for s in slugs if name in declared_fields(method_class(s))]
        for method, slugs in ((m, [s.strip() for s in m.split("+")]) for m in methods)
    }
    having = [slug for found in owners.values() for slug in found]
    lacking = [method for method, found in owners.items() if not found]
    if having and lacking:
        raise InvalidParameter(
            f"--set {setting!r} is for every --method, but {lacking[0]} has no parameter {name!r}: "
            f"use --set {having[0]}.{setting}."
        )


def _addressee(setting: str) -> str:
    """The slug in "slug.name=value", empty where there is none."""
    return _split(setting)[0].rpartition(".")[0]


def parameters_of(cls: type, what: str, settings: Sequence[str]) -> dict[str, Any]:
    """Parameters of the dataclass `cls` from "name=value"; `what` names it in messages."""
    types, parameters = declared_fields(cls), {}
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
        raise InvalidParameter(f"--set {setting!r} is not valid: use --set NAME=VALUE.")
    return left.strip(), text.strip()


def _parse(setting: str, slugs: list[str]) -> tuple[str, str, Any]:
    """Slug, parameter name and value of one `--set`."""
    left, text = _split(setting)
    slug, dot, name = left.rpartition(".")
    if dot and slug not in slugs:
        raise UnknownName.of("method in --method", slug, slugs)
    owners = [slug] if dot else [s for s in slugs if name in declared_fields(method_class(s))]
    if not owners:
        known = [n for s in slugs for n in declared_fields(method_class(s))]
        raise UnknownName.of(f"parameter of {' + '.join(slugs)}", name, known)
    if len(owners) > 1:
        raise InvalidParameter(
            f"--set {setting!r} is ambiguous between {' and '.join(owners)}: use "
            f"{owners[0]}.{setting}."
        )
    types = declared_fields(method_class(owners[0]))
    if name not in types:
        raise UnknownName.of(f"parameter of {owners[0]}", name, types)
    if name == "keep":
        return owners[0], name, parse_keep(text)
    return owners[0], name, _value(name, text, types[name])


def _value(name: str, text: str, declared: Any) -> Any:
    """The typed text as a value of the declared type."""
    kinds = get_args(declared) if get_origin(declared) in (Union, UnionType) else (declared,)
    for value in _readings(text, kinds):
        with suppress(InvalidParameter):
            return as_declared(name, value, declared)
    raise InvalidParameter(
        f"--set {name}={shown(text)[1:-1]} is not a valid value; use {allowed_values(declared)}."
    )


def _readings(text: str, kinds: tuple) -> Iterator[Any]:
    """Possible values of the text, the most likely first."""
    word = text.lower()
    if word in ("none", "null"):
        yield None
    if word in _BOOLEANS:
        yield _BOOLEANS[word]
    value = _literal(text)
    if value is not None:
        yield value
        if any(get_origin(kind) is tuple or kind is tuple for kind in kinds):
            yield (value,)
    yield text


def _literal(text: str) -> Any:
    """A Python literal such as a number, tuple or list; None for anything else."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
