"""Every error raised on purpose: one sentence that says what, which value, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def shown(value: object) -> str:
    """`value` as messages show it: on one line, and not all of a large one."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


class FoveateError(Exception):
    """Base of all errors raised by foveate."""


class BudgetError(FoveateError, ValueError):
    """A budget (`keep`) that can't be honoured."""


class UnknownName(FoveateError, LookupError):
    """A method, parameter, model or task of a name that does not exist."""

    @classmethod
    def of(cls, kind: str, name: object, known: Iterable[str]) -> UnknownName:
        """The error for an unknown `name`, naming the nearest of `known`."""
        known = sorted(known)
        lower = {text.lower(): text for text in known}
        near = [lower[s] for s in get_close_matches(str(name).lower(), lower, n=1, cutoff=0.5)]
        hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}."
        return cls(f"There is no {kind} {str(name)!r}; {hint}")


class InvalidParameter(FoveateError, ValueError):
    """A method parameter with a value outside its range."""


class MissingWeights(FoveateError, LookupError):
    """Trained parts of a method that don't exist for this base model, or can't be read."""


class UnsupportedModel(FoveateError, TypeError):
    """A model that foveate can't attach to."""


class UnsupportedCall(FoveateError, RuntimeError):
    """A call that an attached model can't answer exactly; the message names what to use instead."""


class AlreadyAttached(FoveateError, RuntimeError):
    """`attach` on a model that carries a method already."""


class MediaError(FoveateError, ValueError):
    """An image or video that can't be read."""


def first_sentence(error: BaseException) -> str:
    """The first sentence of a foreign error, which may run over many lines."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ")[0].rstrip(".") + "."
