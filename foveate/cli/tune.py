"""`foveate tune`: the cheapest setting that loses next to nothing on your own questions."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli.ask import Device, Dtype
from foveate.cli.models import DEFAULT


class Searcher(StrEnum):
    """How G-Search finds the rate of a layer."""

    bisect = "bisect"
    bo = "bo"


def tune(
    model: Annotated[
        str, typer.Option(help="Embedded model, folder, or name on the Hugging Face Hub.")
    ] = DEFAULT,
    data: Annotated[
        Path | None,
        typer.Option(
            help="JSONL file of questions: image, images or video, question, answer, choices."
        ),
    ] = None,
    world: Annotated[
        str | None,
        typer.Option(metavar="TASKS", help="Tasks of the world as I1,I9, in place of --data."),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=2, help="Items per task of --world.")] = 200,
    max_drop: Annotated[
        str, typer.Option(help="Accuracy that may be lost: 1% or 0.01 is one point.")
    ] = "1%",
    budget_flops: Annotated[
        str | None,
        typer.Option(help="Prefill FLOPs to spend: 40% of the bare model's, or 2e12 per sample."),
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Slugs as a,b+c,d; gsearch searches a rate for every layer.")
    ] = None,
    keep: Annotated[str | None, typer.Option(help="Shares to try, as 50%,25%,0.1.")] = None,
    searcher: Annotated[Searcher, typer.Option(help="bo needs the extra 'search'.")] = (
        Searcher.bisect
    ),
    held_out: Annotated[
        str, typer.Option(help="Part of the questions that chooses nothing and is reported.")
    ] = "50%",
    batch: Annotated[int, typer.Option(min=1, help="Questions per call of the model.")] = 32,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each video.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the split and of the searches.")] = 0,
    out: Annotated[Path, typer.Option(help="File of the plan; measurements lie beside it.")] = (
        Path("plan.json")
    ),
    device: Annotated[Device, typer.Option(help="auto takes CUDA where there is one.")] = (
        Device.auto
    ),
    dtype: Annotated[Dtype, typer.Option(help="auto is bfloat16 on CUDA, else float32.")] = (
        Dtype.auto
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, no progress.")] = False,
) -> None:
    """Find the cheapest method and schedule for your own questions, and write it as a plan.

    Measurements are kept: after an interruption the same command goes on. Exits with 1 where
    nothing cheaper keeps what --max-drop asks for.
    """
    from foveate.cli.method_options import parse_list
    from foveate.cli.tune_output import Watcher, print_plan
    from foveate.errors import FoveateError
    from foveate.tuning.samples import read_samples
    from foveate.tuning.tuner import check

    shares = parse_list(keep)
    # Cheap mistakes are found before the model loads.
    asked: dict[str, Any] = {
        "methods": parse_list(methods),
        "keep": None if shares is None else [_share(part, "--keep") for part in shares],
        "max_drop": _share(max_drop, "--max-drop"),
        "budget_flops": None if budget_flops is None else _share(budget_flops, "--budget-flops"),
        "searcher": searcher.value,
        "held_out": _share(held_out, "--held-out"),
        "batch": batch,
        "frames": frames,
    }
    check(**asked)
    if data is not None and world is not None:
        raise FoveateError("--data and --world are two sources of questions; give one of them.")
    if data is None and world is None:
        raise FoveateError(
            "Questions are needed: give --data FILE.jsonl, or --world I1,I9 for an embedded model; "
            "'foveate world --split val --out FOLDER' writes such a file."
        )
    if out.is_dir():
        raise FoveateError(f"--out {str(out)!r} is a folder; name a file such as plan.json.")
    if not out.parent.is_dir():
        raise FoveateError(f"There is no folder {str(out.parent)!r} for {out.name}.")
    samples = None if data is None else read_samples(data)

    from foveate.answering import few_threads
    from foveate.cli.console import print_json, waiting
    from foveate.cli.models import load_model
    from foveate.tuning import tune as search

    with waiting(f"loading {model}"):
        loaded, processor = load_model(model, device.value, dtype.value)
    if samples is None:
        with waiting("drawing the world"):
            samples = _drawn(loaded, parse_list(world) or [], n)
    folder = out.with_suffix(".tune")
    name = Path(model).name if Path(model).is_dir() else model
    try:
        with few_threads(loaded), Watcher(show=not as_json) as watcher:
            plan = search(
                loaded, processor, samples, folder=folder, seed=seed, name=name, watch=watcher,
                **asked,
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo(
            f"Interrupted. What was measured is kept in {folder}; the same command goes on from "
            "there.",
            err=True,
        )
        raise typer.Exit(130) from None
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
        raise InvalidParameter(f"{name} {text!r} is no number; write 1% or 0.01.") from None


def _drawn(model: Any, tasks: list[str], n: int) -> list[Any]:
    """World items in the size that the model was trained for."""
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
            "--world draws tasks such as I1,I9 for embedded models; write other questions as "
            "--data FILE.jsonl."
        )
    if n > SPLIT_SIZES["val"]:
        raise FoveateError(f"--n {n}: the world keeps {SPLIT_SIZES['val']} items per task for it.")
    return world_samples(tasks, n, size, patch)
