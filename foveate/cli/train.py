"""`foveate train`: make an embedded model again, on any machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Recipe(StrEnum):
    """Models that have a recipe."""

    nano = "nano"
    image = "mini-image"


def train(
    name: Annotated[Recipe, typer.Argument(help="The model to train.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; runs/NAME by default.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=2, help="Steps in place of the recipe's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and lessons.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads in place of the recipe's.")
    ] = None,
    evaluate: Annotated[
        int, typer.Option(min=0, help="Test items per task for the model card, 0 for none.")
    ] = 1000,
    resume: Annotated[bool, typer.Option(help="Go on from an interrupted run.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, no progress bar.")] = False,
) -> None:
    """Train an embedded model, with the procedural world as its only teacher."""
    from foveate.cli.console import print_json
    from foveate.errors import FoveateError
    from foveate.mini import trainer
    from foveate.mini.subjects import SUBJECTS

    folder = out or Path("runs") / name.value
    try:
        written = trainer.train(
            folder,
            subject=SUBJECTS[name.value],
            steps=steps,
            seed=seed,
            threads=threads,
            resume=resume,
            progress=not as_json,
            evaluate=evaluate,
        )
    except OSError as error:
        raise FoveateError(f"{str(folder)!r} can't be written ({error.strerror}).") from None
    if as_json:
        print_json({"model": name.value, "folder": str(written), "seed": seed})
    else:
        typer.echo(f"{name.value} is in {written}; use it with --model {written}")
