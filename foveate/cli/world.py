"""`foveate world`: pictures and questions of the procedural world as files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Export(StrEnum):
    """File formats."""

    jsonl = "jsonl"
    mmbench = "mmbench"
    lmms_eval = "lmms-eval"


class Form(StrEnum):
    """Answers as words, or as letters of options."""

    word = "word"
    letter = "letter"


def world(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    image: Annotated[bool, typer.Option("--image", help="Image tasks; the default.")] = True,
    task: Annotated[
        list[str] | None,
        typer.Option(help="A task such as I3; repeatable. All that exist for the size by default."),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val, test or test-ood.")] = "test",
    n: Annotated[int, typer.Option(min=1, help="Items per task.")] = 100,
    size: Annotated[int, typer.Option(help="Side of a picture in pixels.")] = 112,
    patch: Annotated[int, typer.Option(min=1, help="Side of a patch in pixels.")] = 8,
    export: Annotated[Export, typer.Option(help="File format.")] = Export.jsonl,
    form: Annotated[
        Form, typer.Option(help="Answers as words or as letters; mmbench has letters always.")
    ] = Form.word,
    circular: Annotated[
        bool, typer.Option(help="All rotations of the options; for mmbench.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Write into a folder that holds files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write pictures with questions, answers and the places that show them."""
    from foveate.errors import FoveateError
    from foveate.mini.world import exports
    from foveate.mini.world.exports.mmbench import CATEGORIES

    if circular and export is not Export.mmbench:
        raise FoveateError("--circular is a variant of --export mmbench; leave it out.")
    exports.check_folder(out, force)
    rows_only = CATEGORIES if export is Export.mmbench else None
    names = _tasks(task or (), size, patch, rows_only)
    made = _items(names, split, n, size, patch, form.value)
    options = {"circular": True} if circular else {}
    try:
        written = exports.write(made, out, export.value, **options)
    except OSError as error:
        raise FoveateError(f"{str(out)!r} can't be written ({error.strerror}).") from None
    if as_json:
        from foveate.cli.console import print_json

        files = [str(path) for path in written]
        print_json({"tasks": names, "split": split, "items": len(made), "files": files})
    else:
        typer.echo(f"{len(made)} items of {', '.join(names)} ({split}) are in {out}")


def _tasks(asked, size: int, patch: int, rows_only) -> list[str]:
    """The tasks to write: those asked for, or all that the size and the format have."""
    from foveate.errors import FoveateError, UnknownName
    from foveate.mini.world import CATALOGUE, tasks

    for name in asked:
        if name not in CATALOGUE:
            raise UnknownName.of("task", name, CATALOGUE)
    if asked:
        return list(dict.fromkeys(asked))
    here = [name for name in tasks(size, patch) if rows_only is None or name in rows_only]
    if not here:
        raise FoveateError(f"No task exists at {size} px with patches of {patch} px; use 112.")
    return here


def _items(names: list[str], split: str, n: int, size: int, patch: int, form: str) -> list:
    from foveate.errors import FoveateError
    from foveate.mini.world import items
    from foveate.mini.world.keys import SPLIT_SIZES

    most = SPLIT_SIZES.get(split)
    if most is not None and n > most:
        raise FoveateError(f"--n {n}: the split {split} has {most} items per task; ask for fewer.")
    return [one for name in names for one in items(name, split, n, size, patch=patch, form=form)]
