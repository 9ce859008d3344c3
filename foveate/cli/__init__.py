"""The command line: `foveate ask photo.jpg -q "what is this?" --method divprune --keep 25%`.

One file per command. Heavy modules are imported inside the commands, so that `--help` is fast.
"""

from __future__ import annotations

from typing import Annotated

import typer

import foveate
from foveate.cli.ask import ask
from foveate.cli.bench import bench
from foveate.cli.calibrate import calibrate
from foveate.cli.doctor import doctor
from foveate.cli.methods import methods
from foveate.cli.sentences import Sentences
from foveate.cli.train import train
from foveate.cli.tune import tune
from foveate.cli.world import world

app = typer.Typer(
    cls=Sentences,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run vision-language models with fewer visual tokens.",
)
app.command()(ask)
app.command()(methods)
app.command()(bench)
app.command()(tune)
app.command()(calibrate)
app.command()(train)
app.command()(world)
app.command()(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"foveate {foveate.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the command `foveate`."""
    app()
