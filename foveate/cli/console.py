"""Where commands print to."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import typer
from rich.console import Console


def console() -> Console:
    """Standard output; wide when it is no terminal, so that pipes get whole cells."""
    return Console(width=None if sys.stdout.isatty() else 160, soft_wrap=False, highlight=False)


def print_json(value: Any) -> None:
    """A result as JSON on standard output, for other programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def waiting(text: str) -> AbstractContextManager[Any]:
    """A spinner on standard error while something loads; nothing where no one watches."""
    errors = Console(stderr=True)
    return errors.status(text) if errors.is_terminal else nullcontext()
