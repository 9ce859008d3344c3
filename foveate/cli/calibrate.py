"""`foveate calibrate`: thresholds of an adaptive method from pictures of the kind to come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli.ask import Device, Dtype
from foveate.cli.models import DEFAULT


def calibrate(
    media: Annotated[
        list[str] | None,
        typer.Argument(help="Pictures; without any, those of the world that nano is trained on."),
    ] = None,
    out: Annotated[Path, typer.Option(help="File to write, for --set thresholds=FILE.")] = Path(
        "thresholds.json"
    ),
    method: Annotated[str, typer.Option(help="Slug of a method with thresholds.")] = "dymu",
    keep: Annotated[
        str | None, typer.Option(help="Tokens to keep on average: 64, 0.25 or 25%.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the method; repeatable."),
    ] = None,
    world: Annotated[int, typer.Option(min=1, help="Pictures of the world per task.")] = 50,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 64,
    model: Annotated[
        str, typer.Option(help="Embedded model, folder, or name on the Hugging Face Hub.")
    ] = DEFAULT,
    device: Annotated[Device, typer.Option(help="auto takes CUDA where there is one.")] = (
        Device.auto
    ),
    dtype: Annotated[Dtype, typer.Option(help="auto is bfloat16 on CUDA, else float32.")] = (
        Dtype.auto
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find the thresholds by which pictures keep a share of their tokens on average."""
    from foveate.cli.method_options import build_method
    from foveate.errors import FoveateError, UnknownName
    from foveate.media import load_image
    from foveate.method import registered

    able = [slug for slug, c in registered().items() if hasattr(c, "calibrate")]
    if method not in able:
        raise UnknownName.of("method with thresholds", method, able)
    chosen = build_method(method, keep, set_ or ())
    images = [load_image(source) for source in media or ()]

    from foveate.cli.console import print_json, waiting
    from foveate.cli.models import load_model

    with waiting(f"loading {model}"):
        loaded, processor = load_model(model, device.value, dtype.value)
    if not images:
        images = world_pictures(processor, world)
    parameters = {k: v for k, v in chosen.to_dict().items() if k not in ("method", "thresholds")}
    kind: Any = type(chosen)
    found = kind.calibrate(
        loaded, processor, images, batch_size=batch_size, progress=not as_json, **parameters
    )
    text = json.dumps(found.to_dict(), indent=2) + "\n"
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FoveateError(f"{str(out)!r} can't be written ({error.strerror}).") from None
    if as_json:
        print_json({**found.to_dict(), "pictures": len(images), "out": str(out)})
    else:
        typer.echo(f"{found} from {len(images)} pictures is in {out}")


def world_pictures(processor, each: int) -> list:
    """`each` training pictures per task, of the size that the processor makes."""
    from foveate.mini.world import items, tasks

    size = processor.image_processor.crop_size["height"]
    names = tasks(size, processor.patch_size)
    return [p for name in names for item in items(name, "train", each, size) for p in item.images()]
