"""`foveate tune`: the cheapest method and budget within a given accuracy drop on your data."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli.models import DEFAULT
from foveate.cli.options import Device, DeviceOption, Dtype, DtypeOption, JsonOption, ModelOption
from foveate.cli.sentences import interruptible


class Searcher(StrEnum):
    """How G-Search finds the retention ratio of a layer."""

    bisect = "bisect"
    bo = "bo"


def tune(
    model: ModelOption = DEFAULT,
    data: Annotated[
        Path | None,
        typer.Option(
            help="JSONL file, one sample per line: image, images or video, question, answer, "
            "choices (optional)."
        ),
    ] = None,
    world: Annotated[
        str | None,
        typer.Option(metavar="TASKS", help="Synthetic tasks as I1,I9 instead of --data."),
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", min=2, help="Items per task of --world. Default: 200.")
    ] = None,
    max_drop: Annotated[
        str,
        typer.Option(
            help="Largest accuracy drop on the search split: 1% or 0.01 is one percentage point "
            "below the full model."
        ),
    ] = "1%",
    budget_flops: Annotated[
        str | None,
        typer.Option(help="Prefill FLOPs: 40% of the full model, or 2e12 per sample."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods as a,b+c,d. a+b applies both; gsearch searches a ratio for every layer."
        ),
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="Retention ratios to try, as 50%,25%,0.1.")
    ] = None,
    searcher: Annotated[
        Searcher,
        typer.Option(help="For gsearch: bisect, or bo (Bayesian optimisation, extra 'search')."),
    ] = Searcher.bisect,
    held_out: Annotated[
        str, typer.Option(help="Size of the held-out split, which the search does not use.")
    ] = "50%",
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 32,
    frames: Annotated[int, typer.Option(min=1, help="Frames per video, evenly spaced.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the search.")] = 0,
    out: Annotated[
        Path, typer.Option(help="File of the plan. Measurements are saved beside it.")
    ] = Path("plan.json"),
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Dtype.auto,
    as_json: JsonOption = False,
) -> None:
    """Find the cheapest method and budget for your model and data, and write it as a plan.

    Each measurement is saved: after an interruption, run the same command again to continue. The
    exit code is 1, and no plan is written, if no setting cheaper than the full model stays within
    --max-drop on the search split. A larger drop on the held-out split is a warning.
    """
    from foveate.cli.method_options import parse_list
    from foveate.cli.tune_output import Watcher, print_plan
    from foveate.errors import FoveateError
    from foveate.tuning.samples import read_samples
    from foveate.tuning.tuner import check

    ratios = parse_list(keep)
    # Wrong values are found before the model is loaded.
    asked: dict[str, Any] = {
        "methods": parse_list(methods),
        "keep": None if ratios is None else [_share(part, "--keep") for part in ratios],
        "max_drop": _share(max_drop, "--max-drop"),
        "budget_flops": None if budget_flops is None else _share(budget_flops, "--budget-flops"),
        "searcher": searcher.value,
        "held_out": _share(held_out, "--held-out"),
        "batch": batch,
        "frames": frames,
    }
    check(**asked)
    if data is not None and world is not None:
        raise FoveateError("--data and --world are both given: use one of them.")
    if data is None and world is None:
        raise FoveateError(
            "No samples: use --data FILE.jsonl, or --world I1,I9 for an embedded model. "
            "'foveate world --split val --out FOLDER' writes such a file."
        )
    if data is not None and n is not None:
        raise FoveateError("--n is the number of items of --world: omit it with --data.")
    if out.is_dir():
        raise FoveateError(f"--out {str(out)!r} is a folder: use a file name such as plan.json.")
    if not out.parent.is_dir():
        raise FoveateError(f"There is no folder {str(out.parent)!r} for {out.name}: create it.")
    samples = None if data is None else read_samples(data)

    from foveate.answering import few_threads
    from foveate.cli.console import print_json, waiting
    from foveate.cli.models import load_model
    from foveate.tuning import tune as search

    loaded, processor = load_model(model, device.value, dtype.value, as_json)
    if samples is None:
        with waiting("drawing images", as_json):
            samples = _drawn(loaded, parse_list(world) or [], n or 200)
    folder = out.with_suffix(".tune")
    name = Path(model).name if Path(model).is_dir() else model
    kept = (
        f"The finished measurements are saved in {folder}: run the same command again to continue."
    )
    with interruptible(kept), few_threads(loaded), Watcher(show=not as_json) as watcher:
        plan = search(
            loaded, processor, samples, folder=folder, seed=seed, name=name, watch=watcher,
            **asked,
        )  # fmt: skip
    if plan.setting is not None:
        plan.save(out)
    if as_json:
        print_json(plan.to_dict())
    else:
        print_plan(plan, out)
    if plan.setting is None:
        raise typer.Exit(1)


def _share(text: str, name: str) -> float:
    """ "1%" and "0.01" are the same number."""
    from foveate.errors import InvalidParameter

    typed = text.strip()
    try:
        return float(typed[:-1]) / 100 if typed.endswith("%") else float(typed)
    except ValueError:
        raise InvalidParameter(f"{name} {text!r} is not a number: use 1% or 0.01.") from None


def _drawn(model: Any, tasks: list[str], n: int) -> list[Any]:
    """Items of synthetic tasks in the image size of the model."""
    from foveate.errors import FoveateError, UnknownName
    from foveate.mini.world import CATALOGUE
    from foveate.mini.world.keys import SPLIT_SIZES
    from foveate.tuning import world_samples

    for task in tasks:
        if task not in CATALOGUE:
            raise UnknownName.of("task", task, CATALOGUE)
    vision = getattr(model.config, "vision_config", None)
    size, patch = getattr(vision, "image_size", None), getattr(vision, "patch_size", None)
    if not tasks or not isinstance(size, int) or not isinstance(patch, int):
        raise FoveateError(
            "--world needs an embedded model and tasks such as I1,I9. For other models use --data "
            "FILE.jsonl."
        )
    if n > SPLIT_SIZES["val"]:
        raise FoveateError(
            f"--n {n} is out of range: the split val has {SPLIT_SIZES['val']} items per task."
        )
    return world_samples(tasks, n, size, patch)
