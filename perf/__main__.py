"""`python -m perf --out DIR`: measure, print the tables, write JSON and Markdown.

`python -m perf --render` rewrites the pages from the stored JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

import foveate
from perf import cache, dispatch, layers, peers, prefill_page, selection
from perf.divprune import divprune_against_naive
from perf.jpeg import decode
from perf.prefill import measure
from perf.rendering import Page, heading, pages
from perf.shapes import LLAVA_7B, QWEN2_05B, Shape

# Writes a result and returns its page; measures a section.
Keep = Callable[[dict[str, Any]], str]
Measure = Callable[[argparse.Namespace, Keep], str]


def main() -> None:
    """Run the measurements, each into files of its own name, or render stored ones."""
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("perf/results"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=SECTIONS, help="run one measurement")
    parser.add_argument(
        "--pictures", type=int, default=16, help="layers: images per prompt, at most"
    )
    parser.add_argument("--methods", help="layers: measure methods a,b again, keep the others")
    parser.add_argument("--render", action="store_true", help="rewrite pages, measure nothing")
    options = parser.parse_args()
    if options.render:
        for path, text in pages(
            options.out, {n: page for n, (_, page) in SECTIONS.items()}
        ).items():
            path.write_text(text)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    where, _ = device()
    for name in [options.only] if options.only else sections(where):
        run, page = SECTIONS[name]
        print(run(options, partial(write, options, name, page)))


def named(section: str) -> str:
    """The file name of a section, without its ending."""
    where, _ = device()
    return where if section == "prefill" else f"{section}_cuda" if where == "cuda" else section


def write(asked: argparse.Namespace, section: str, page: Page, result: dict[str, Any]) -> str:
    """Write the results so far with their commands, and return the page."""
    commands = dict.fromkeys([*result.get("commands", []), command(asked, section)])
    result = {"machine": machine(), **result, "commands": [*commands]}
    path = asked.out / named(section)
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    text = heading(result) + page(result)
    path.with_suffix(".md").write_text(text)
    return text


def command(asked: argparse.Namespace, section: str) -> str:
    """The command line that measures a section with these options."""
    told = f"python -m perf --only {section} --rounds {asked.rounds}"
    if section.startswith("layers"):
        told += f" --pictures {asked.pictures}"
        told += f" --methods {asked.methods}" if asked.methods else ""
    return told


def sections(where: str) -> list[str]:
    """The sections of a run without --only: the 7B model on a GPU only."""
    return [name for name in SECTIONS if where == "cuda" or name != "layers_7b"]


def device() -> tuple[str, torch.dtype]:
    """Device and dtype of the measurements."""
    return ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)


def machine() -> dict[str, Any]:
    """Hardware and versions that the results depend on."""
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        "dtype": str(device()[1]),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "foveate": foveate.__version__,
    }


def calls(rounds: int) -> dict[str, Any]:
    """Whole calls with methods before the LLM and two inside it, JPEG decoding, DivPrune alone."""
    where, dtype = device()
    return {
        "decode": decode(rounds),
        "selection": divprune_against_naive(rounds, where),
        "prefill": [
            measure(shape, dtype, where, rounds, batch)
            for shape in ([QWEN2_05B, LLAVA_7B] if where == "cuda" else [QWEN2_05B])
            # One prompt of this length does not fill a GPU.
            for batch in ((1, 16) if where == "cuda" else (1,))
        ],
    }


def between_layers(asked: argparse.Namespace, keep: Keep, name: str, shape: Shape) -> str:
    """Measure the methods inside the LLM: all, or those of --methods."""
    where, dtype = device()
    measured = layers.renewed(
        asked.out / f"{named(name)}.json",
        asked.methods.split(",") if asked.methods else None,
        lambda only: layers.measure(asked.rounds, where, dtype, shape, asked.pictures, only),
    )
    # Results are written after every prompt size.
    return [keep(result) for result in measured][-1]


SECTIONS: dict[str, tuple[Measure, Page]] = {
    "prefill": (lambda asked, keep: keep(calls(asked.rounds)), prefill_page.page),
    "selection": (lambda asked, keep: keep(selection.measure(asked.rounds)), selection.page),
    "layers": (
        lambda asked, keep: between_layers(asked, keep, "layers", layers.SHAPE),
        layers.page,
    ),
    "layers_7b": (
        lambda asked, keep: between_layers(asked, keep, "layers_7b", layers.LARGE),
        layers.page,
    ),
    "cache": (lambda asked, keep: keep(cache.measure(asked.rounds, *device())), cache.page),
    "peers": (lambda asked, keep: keep(peers.measure(asked.rounds)), peers.page),
    "dispatch": (lambda asked, keep: keep(dispatch.measure()), dispatch.page),
}

if __name__ == "__main__":
    main()
