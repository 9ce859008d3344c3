"""`foveate world`: images and questions of the synthetic tasks as files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.options import JsonOption
from foveate.cli.sentences import interruptible


class Export(StrEnum):
    """File formats."""

    jsonl = "jsonl"
    mmbench = "mmbench"
    lmms_eval = "lmms-eval"


class Form(StrEnum):
    """Answers as words, or as the letter of an option."""

    word = "word"
    letter = "letter"


def world(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    image: Annotated[bool, typer.Option("--image", help="Image tasks (default).")] = True,
    task: Annotated[
        list[str] | None,
        typer.Option(help="A task such as I3; repeatable. Default: all tasks of this image size."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split: train, val, test or test-ood.")] = "test",
    n: Annotated[int, typer.Option(min=1, help="Items per task.")] = 100,
    size: Annotated[int, typer.Option(help="Width and height of an image in pixels.")] = 112,
    patch: Annotated[int, typer.Option(min=1, help="Width and height of a patch in pixels.")] = 8,
    export: Annotated[Export, typer.Option(help="File format.")] = Export.jsonl,
    form: Annotated[
        Form,
        typer.Option(help="Answers as words or option letters; mmbench always uses letters."),
    ] = Form.word,
    circular: Annotated[
        bool, typer.Option(help="mmbench only: every rotation of the options.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Write into a folder that is not empty.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write images with questions, answers and evidence boxes, for evaluation with other tools."""
    from foveate.errors import FoveateError
    from foveate.mini.world import exports
    from foveate.mini.world.exports.mmbench import CATEGORIES

    if circular and export is not Export.mmbench:
        raise FoveateError("--circular needs --export mmbench: add it, or omit --circular.")
    exports.check_folder(out, force)
    rows_only = CATEGORIES if export is Export.mmbench else None
    names = _tasks(task or (), size, patch, rows_only)
    options = {"circular": True} if circular else {}
    with interruptible(lambda: _kept(out)):
        made = _items(names, split, n, size, patch, form.value)
        try:
            written = exports.write(made, out, export.value, **options)
        except OSError as error:
            raise FoveateError(f"{str(out)!r} can't be written ({error.strerror}).") from None
    if as_json:
        from foveate.cli.console import print_json

        files = [str(path) for path in written]
        print_json({"tasks": names, "split": split, "items": len(made), "files": files})
    else:
        typer.echo(f"{len(made)} items of {', '.join(names)} (split {split}): {out}")


def _kept(out: Path) -> str:
    if out.is_dir() and any(out.iterdir()):
        return f"{out} holds a part of the files: run the same command again with --force."
    return "No file was written: run the same command again."


def _tasks(asked, size: int, patch: int, rows_only) -> list[str]:
    """The requested tasks, or all that exist for the image size and the file format."""
    from foveate.errors import FoveateError, UnknownName
    from foveate.mini.world import CATALOGUE, tasks

    for name in asked:
        if name not in CATALOGUE:
            raise UnknownName.of("task", name, CATALOGUE)
    if asked:
        return list(dict.fromkeys(asked))
    here = [name for name in tasks(size, patch) if rows_only is None or name in rows_only]
    if not here:
        raise FoveateError(
            f"No task exists for --size {size} and --patch {patch}: use --size 112 --patch 8."
        )
    return here


def _items(names: list[str], split: str, n: int, size: int, patch: int, form: str) -> list:
    from foveate.errors import FoveateError
    from foveate.mini.world import items
    from foveate.mini.world.keys import SPLIT_SIZES

    most = SPLIT_SIZES.get(split)
    if most is not None and n > most:
        raise FoveateError(f"--n {n} is out of range: the split {split} has {most} items per task.")
    return [one for name in names for one in items(name, split, n, size, patch=patch, form=form)]
