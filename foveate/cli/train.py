"""`foveate train`: train an embedded model, or the learned modules of a method."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli.options import Device, DeviceOption, JsonOption
from foveate.cli.sentences import interruptible


class Recipe(StrEnum):
    """Embedded models with a training recipe."""

    nano = "nano"
    image = "mini-image"
    large_image = "mini-image-192"
    text = "mini-text"


def train(
    name: Annotated[Recipe | None, typer.Argument(help="An embedded model to train.")] = None,
    method: Annotated[
        str | None, typer.Option(help="Method whose learned modules to train for --model.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="Base model for --method and mini-text: embedded model or folder.")
    ] = "nano",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. Default: runs/NAME or runs/SLUG.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=2, help="Number of steps. Default: the recipe's.")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**63 - 1, help="Seed of weights and training data."),
    ] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A parameter of the recipe of --method; repeatable."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="CPU threads. On a GPU: processes that draw images for an embedded model."
        ),
    ] = None,
    device: DeviceOption = Device.auto,
    evaluate: Annotated[
        int | None,
        typer.Option(min=0, help="Test items per task for the model card. 0: no evaluation."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue an interrupted run in the folder.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Train an embedded model, or the learned modules of a method for a frozen base model.

    The training data is the procedural world. mini-text is a CLIP text encoder for the vision
    encoder of --model: minutes on one CPU thread, without checkpoints. mini-image-192 is meant
    for a GPU. Some methods (llavolta, vista_llama, tc_llava) fine-tune a copy of the base model.
    """
    from foveate.errors import FoveateError, first_sentence

    if name is None and method is None:
        raise FoveateError("Nothing to train: name an embedded model such as nano, or --method.")
    if name is not None and method is not None:
        raise FoveateError(
            f"Both {name.value} and --method {method} are given: use one. Use --method {method} "
            f"--model {name.value} to train the modules of {method} for {name.value}."
        )
    if settings and method is None:
        raise FoveateError("--set needs --method: it sets a parameter of the method's recipe.")
    folder = out or Path("runs") / (name.value if name else str(method))
    common: dict[str, Any] = {"steps": steps, "seed": seed, "resume": resume}
    common["progress"] = not as_json
    if evaluate is not None:
        common["evaluate"] = evaluate
    try:
        with interruptible(lambda: _kept(folder, resume)):
            if name is Recipe.text:
                if device is Device.cuda:
                    raise FoveateError("mini-text trains on the CPU: remove --device cuda.")
                _text(model, folder, common, as_json)
            elif name is not None:
                _model(name, folder, threads, device, common, as_json)
            else:
                _parts(str(method), model, folder, settings or [], threads, device, common, as_json)
    except OSError as error:
        if error.strerror is None:
            # transformers raises this for a folder without a model.
            raise FoveateError(f"{model!r} can't be read: {first_sentence(error)}") from None
        raise FoveateError(f"{str(folder)!r} can't be written ({error.strerror}).") from None


def _kept(folder: Path, resume: bool) -> str:
    if (folder / "checkpoint.pt").exists():
        command = "the same command again" if resume else "it again without --no-resume"
        return f"The last checkpoint is saved in {folder}: run {command} to continue."
    return "No checkpoint was written yet: run the same command again to start from the first step."


def _model(
    name: Recipe,
    folder: Path,
    threads: int | None,
    device: Device,
    common: dict,
    as_json: bool,
) -> None:
    from foveate.cli.console import print_json
    from foveate.mini import trainer
    from foveate.mini.model_specs import SPECS

    place = None if device is Device.auto else device.value
    written = trainer.train(folder, spec=SPECS[name.value], threads=threads, device=place, **common)
    if as_json:
        print_json({"model": name.value, "folder": str(written), "seed": common["seed"]})
    else:
        typer.echo(f"{name.value} is in {written}; use it with --model {written}")


def _text(model: str, folder: Path, common: dict, as_json: bool) -> None:
    from foveate.cli.console import print_json
    from foveate.mini import clip_training

    asked = {k: v for k, v in common.items() if k != "resume"}
    written = clip_training.train(folder, model=model, **asked)
    if as_json:
        print_json({"model": f"{model}-text", "folder": str(written), "seed": common["seed"]})
    else:
        typer.echo(f"The text encoder is in {written}; foveate.mini.clip.load_clip loads it.")


def _parts(
    slug: str,
    name: str,
    folder: Path,
    settings: list[str],
    threads: int | None,
    device: Device,
    common: dict,
    as_json: bool,
) -> None:
    import json
    import shlex

    import torch

    from foveate.cli.console import print_json
    from foveate.cli.method_options import parameters_of
    from foveate.cli.models import load_model
    from foveate.training import recipe_of, train

    cls = recipe_of(slug)
    recipe = cls(**parameters_of(cls, f"the recipe of {slug}", settings))
    if threads is not None:
        torch.set_num_threads(threads)
    model, processor = load_model(name, device.value, "float32", as_json)
    command = f"foveate train --method {slug} --model {name} --seed {common['seed']}"
    if common["steps"] is not None:
        command += f" --steps {common['steps']}"
    command += "".join(f" --set {shlex.quote(setting)}" for setting in settings)
    if model.device.type != "cpu":
        command += f" --device {model.device.type}"
    written = train(slug, model, processor, folder, recipe=recipe, command=command, **common)
    card = json.loads((written / "card.json").read_text(encoding="utf-8"))
    if as_json:
        print_json({"method": slug, "model": name, "folder": str(written), **card})
        return
    rows = card.get("test", {})
    width = max(map(len, rows), default=0)
    for label, row in rows.items():
        typer.echo(f"{label:<{width}}  accuracy {row['mean']:.3f}  {row['tokens']:.0%} of tokens")
    usage = cls.usage.format(folder=written, slug=slug)
    typer.echo(f"{slug} for {name} is in {written}; use it with {usage}")
