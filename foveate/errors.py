"""All exceptions of foveate. A message says what is wrong, which value, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def shown(value: object) -> str:
    """`repr(value)` for error messages: on one line, at most 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


class FoveateError(Exception):
    """Base of all errors raised by foveate."""


class BudgetError(FoveateError, ValueError):
    """A token budget (`keep`) that is out of range."""


class UnknownName(FoveateError, LookupError):
    """A method, parameter, model or task name that does not exist."""

    @classmethod
    def of(cls, kind: str, name: object, known: Iterable[str]) -> UnknownName:
        """The error for an unknown `name`, with the nearest of the `known` names."""
        known = sorted(known)
        lower = {text.lower(): text for text in known}
        near = [lower[s] for s in get_close_matches(str(name).lower(), lower, n=1, cutoff=0.6)]
        hint = f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(known)}."
        return cls(f"Unknown {kind}: {str(name)!r}; {hint}")


class InvalidParameter(FoveateError, ValueError):
    """A method parameter with an invalid value."""


class MissingWeights(FoveateError, LookupError):
    """Learned weights of a method that are missing for this model, or that can't be read."""


class UnsupportedModel(FoveateError, TypeError):
    """A model that foveate can't attach to."""


class UnsupportedCall(FoveateError, RuntimeError):
    """A call that can't give exact results on an attached model; the message says what to use."""


class AlreadyAttached(FoveateError, RuntimeError):
    """`attach` was called on a model that has a method attached."""


class MediaError(FoveateError, ValueError):
    """An image or video that can't be read."""


def first_sentence(error: BaseException) -> str:
    """The first sentence of another library's error message, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ")[0].rstrip(".") + "."
