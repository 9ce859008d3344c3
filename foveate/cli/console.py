"""Where commands print to."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import typer
from rich.console import Console


def console() -> Console:
    """Standard output; 160 columns wide if it is not a terminal, so that pipes get whole cells."""
    return Console(width=None if sys.stdout.isatty() else 160, soft_wrap=False, highlight=False)


def print_json(value: Any) -> None:
    """A result as JSON on standard output, for other programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def watched() -> bool:
    """Whether standard error is a terminal, so that progress is worth showing."""
    return Console(stderr=True).is_terminal


def waiting(text: str, quiet: bool = False) -> AbstractContextManager[Any]:
    """A spinner on standard error while something runs; none if quiet or without a terminal."""
    return nullcontext() if quiet or not watched() else Console(stderr=True).status(text)
