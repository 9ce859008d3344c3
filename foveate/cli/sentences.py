"""Errors raised on purpose end as one sentence on standard error, never as a traceback."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from foveate.errors import FoveateError


class Sentences(TyperGroup):
    """Commands that exit with 2 on a `FoveateError` and with 130 when interrupted."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FoveateError as error:
            typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(130) from None
