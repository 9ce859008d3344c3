"""Errors and interrupts end as one sentence on standard error, never as a traceback or a box."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from foveate.errors import FoveateError

# Typer exports the error for a wrong value only; its base is that for all wrong command lines.
_UsageError: Any = typer.BadParameter.__base__


class Sentences(TyperGroup):
    """Commands that exit with 2 on an error of the user and with 130 when interrupted."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the options of the group."""
        with _one_sentence():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Parse the options of a command and run it."""
        with _one_sentence(), interruptible("Run the same command again."):
            return super().invoke(ctx)


@contextmanager
def interruptible(sentence: str | Callable[[], str]) -> Iterator[None]:
    """On Ctrl-C say what is kept and how to go on, and exit with 130.

    sentence: the words after "Interrupted.", or a function that gives them.
    """
    try:
        yield
    except KeyboardInterrupt:
        told = sentence if isinstance(sentence, str) else sentence()
        typer.echo(f"Interrupted. {told}", err=True)
        raise typer.Exit(130) from None


@contextmanager
def _one_sentence() -> Iterator[None]:
    try:
        yield
    except FoveateError as error:
        _say(str(error))
        raise typer.Exit(2) from None
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        _say(_usage(error))
        raise typer.Exit(2) from None


def _say(text: str) -> None:
    typer.echo(f"Error: {' '.join(text.split())}", err=True)


def _usage(error: Any) -> str:
    """What is wrong with a command line; without a suggestion, how to list what is known."""
    text = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    # The words of the validator below Typer.
    text = re.sub(r", unable to parse .*", "", text)
    text = text.replace("Input should be greater than or equal to", "use at least")
    text = text.replace("Input should be", "use")
    if text.endswith("?"):
        return re.sub(r"[.,]? ?Did you mean", "; did you mean", text)
    command = "foveate" if error.ctx is None else f"foveate {error.ctx.info_name or ''}".strip()
    command = "foveate" if error.ctx is None or error.ctx.parent is None else command
    listed = "commands" if text.startswith("No such command") else "options"
    return f"{text}; '{command} --help' lists the {listed}."
