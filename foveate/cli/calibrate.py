"""`foveate calibrate`: thresholds of an adaptive method from sample images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli.models import DEFAULT
from foveate.cli.options import (
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    JsonOption,
    ModelOption,
    SettingsOption,
)
from foveate.cli.sentences import interruptible


def calibrate(
    media: Annotated[
        list[str] | None,
        typer.Argument(help="Images of your data. Default: training images of the model nano."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="File to write. Use it with --set thresholds=FILE.")
    ] = Path("thresholds.json"),
    method: Annotated[str, typer.Option(help="A method with thresholds, such as dymu.")] = "dymu",
    keep: Annotated[
        str | None, typer.Option(help="Mean visual tokens per image: 64, 0.25 or 25%.")
    ] = None,
    set_: SettingsOption = None,
    world: Annotated[
        int | None,
        typer.Option(min=1, help="Synthetic images per task if no images are given. Default: 50."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size.")] = 64,
    model: ModelOption = DEFAULT,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Dtype.auto,
    as_json: JsonOption = False,
) -> None:
    """Find the thresholds with which an adaptive method meets a budget on average over images."""
    from foveate.cli.method_options import build_method
    from foveate.errors import FoveateError, UnknownName
    from foveate.media import load_image
    from foveate.method import registered

    able = [slug for slug, c in registered().items() if hasattr(c, "calibrate")]
    if method not in able:
        raise UnknownName.of("method with thresholds", method, able)
    chosen = build_method(method, keep, set_ or ())
    if media and world is not None:
        raise FoveateError("Images and --world are both given: use one of them.")
    images = [load_image(source) for source in media or ()]

    from foveate.cli.console import print_json
    from foveate.cli.models import load_model

    loaded, processor = load_model(model, device.value, dtype.value, as_json)
    parameters = {k: v for k, v in chosen.to_dict().items() if k not in ("method", "thresholds")}
    kind: Any = type(chosen)
    with interruptible("No thresholds were written: run the same command again."):
        images = images or synthetic_images(processor, world or 50)
        found = kind.calibrate(
            loaded, processor, images, batch_size=batch_size, progress=not as_json, **parameters
        )
    text = json.dumps(found.to_dict(), indent=2) + "\n"
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FoveateError(f"{str(out)!r} can't be written ({error.strerror}).") from None
    if as_json:
        print_json({**found.to_dict(), "images": len(images), "out": str(out)})
    else:
        typer.echo(f"{found} from {len(images)} images: {out}")


def synthetic_images(processor, each: int) -> list:
    """`each` training images per task, in the image size of the processor."""
    from foveate.mini.world import items, tasks

    size = processor.image_processor.crop_size["height"]
    names = tasks(size, processor.patch_size)
    return [p for name in names for item in items(name, "train", each, size) for p in item.images()]
