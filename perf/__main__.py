"""`python -m perf --out DIR`: measure, print the tables, write JSON and Markdown."""

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
from perf import cache, dispatch, layers, peers, selection
from perf.decoding import decode
from perf.diversity import divprune_against_naive
from perf.prefill import measure
from perf.shapes import LLAVA_7B, QWEN2_05B, Shape

LIMITS = """\
Targets: share of promise at least 0.85; choosing at most 1 % of the bare prefill (5 % on a GPU);
keep-all at most 1.02 of bare; peak memory at most 1.00 of bare. "Of bare" is the speed-up as a
share of what the bare decoder gains on a prompt that was that short to begin with: the limit of
the machine.
"""


# From a result to its page; what writes a result and gives its page; what measures a section.
Page = Callable[[dict[str, Any]], str]
Keep = Callable[[dict[str, Any]], str]
Measure = Callable[[argparse.Namespace, Keep], str]


def main() -> None:
    """Run the measurements that are asked for, each into files of its own name."""
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("perf/results"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=SECTIONS, help="one of the measurements")
    parser.add_argument("--pictures", type=int, default=16, help="most of a prompt, for layers")
    parser.add_argument("--methods", help="of layers: measure a,b anew, others keep their figures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    where, _ = device()
    for name in [options.only] if options.only else sections(where):
        run, page = SECTIONS[name]
        print(run(options, partial(write, options, name, page)))


def named(section: str) -> str:
    """The name of a section's files."""
    where, _ = device()
    return where if section == "prefill" else f"{section}_cuda" if where == "cuda" else section


def write(asked: argparse.Namespace, section: str, page: Page, result: dict[str, Any]) -> str:
    """Write what was measured so far, and by which commands; the page."""
    commands = dict.fromkeys([*result.get("commands", []), command(asked, section)])
    result = {"machine": machine(), **result, "commands": [*commands]}
    path = asked.out / named(section)
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    text = heading(result) + page(result)
    path.with_suffix(".md").write_text(text)
    return text


def command(asked: argparse.Namespace, section: str) -> str:
    """What measures a section as it was asked for."""
    told = f"python -m perf --only {section} --rounds {asked.rounds}"
    if section.startswith("layers"):
        told += f" --pictures {asked.pictures}"
        told += f" --methods {asked.methods}" if asked.methods else ""
    return told


def sections(where: str) -> list[str]:
    """What is measured when nothing is asked for: the large shape on a GPU only."""
    return [name for name in SECTIONS if where == "cuda" or name != "layers_7b"]


def device() -> tuple[str, torch.dtype]:
    """What whole calls are measured on."""
    return ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)


def machine() -> dict[str, Any]:
    """What figures depend on."""
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        "dtype": str(device()[1]),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "foveate": foveate.__version__,
    }


def heading(result: dict[str, Any]) -> str:
    """The first lines of a page."""
    machine, commands = result["machine"], ", then ".join(f"`{c}`" for c in result["commands"])
    return (
        f"# Speed on {machine['device']}\n\n"
        f"{commands}: {machine['dtype']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"transformers {machine['transformers']}. Medians of interleaved runs in one process.\n\n"
    )


def calls(rounds: int) -> dict[str, Any]:
    """Whole calls with methods in front of the language model, and what surrounds them."""
    where, dtype = device()
    return {
        "decode": decode(rounds),
        "selection": divprune_against_naive(rounds, where),
        "prefill": [
            measure(shape, dtype, where, rounds, batch)
            for shape in ([QWEN2_05B, LLAVA_7B] if where == "cuda" else [QWEN2_05B])
            # One prompt of this length is too short for a GPU to be busy.
            for batch in ((1, 16) if where == "cuda" else (1,))
        ],
    }


def between_layers(asked: argparse.Namespace, keep: Keep, name: str, shape: Shape) -> str:
    """What methods inside the language model are worth, of all or of those that are asked for."""
    where, dtype = device()
    measured = layers.renewed(
        asked.out / f"{named(name)}.json",
        asked.methods.split(",") if asked.methods else None,
        lambda only: layers.measure(asked.rounds, where, dtype, shape, asked.pictures, only),
    )
    # Every size is written when it is there.
    return [keep(result) for result in measured][-1]


def table(result: dict[str, Any]) -> str:
    """The results of `calls` as Markdown."""
    lines = [LIMITS]
    for shape in result["prefill"]:
        lines += [
            f"## {shape['shape']}, {shape['visual_tokens']} visual + "
            f"{shape['text_tokens']} text tokens"
            + (f", {shape['batch']} prompts at once" if shape["batch"] > 1 else ""),
            "",
            f"Attaching with keep=1.0: {shape['keep_all_over_bare']:.3f} of the bare call's time, "
            f"{shape['keep_all_peak_memory_over_bare']:.2f} of its peak memory.",
            "",
            "| method | tokens | promised | prefill faster by | share | of bare | choosing "
            "| peak memory | cache | time per new token |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in shape["methods"].values():
            lines.append(
                f"| `{row['method']}` | {row['tokens'][0]} → {row['tokens'][1]} "
                f"| {row['promised_speedup']:.2f}× | {row['prefill_speedup']:.2f}× "
                f"| {row['share_of_promise']:.2f} | {row['share_of_bare_short_prompt']:.2f} "
                f"| {100 * row['choosing_share_of_bare_prefill']:.2f} % "
                f"| {row['peak_memory_over_bare']:.2f} | {row['kv_bytes_over_bare']:.2f} "
                f"| {row['decode_over_bare']:.2f} |"
            )
        lines += [
            "",
            f"Milliseconds per stage, behind {result['decode']['seconds'] * 1000:.1f} ms to decode "
            f"a JPEG of {result['decode']['size']}:",
            "",
            _stages(shape),
            "",
        ]
    lines += [
        "## DivPrune alone",
        "",
        "Against greedy selection that re-reads all chosen rows at every step:",
        "",
        "| tokens | width | kept | naive | ours | faster by | same choice |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["selection"]:
        lines.append(
            f"| {row['n']} | {row['d']} | {row['k']} | {row['naive_ms']:.1f} ms "
            f"| {row['ours_ms']:.1f} ms | {row['speedup']:.1f}× "
            f"| {'yes' if row['same_choice'] else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def _stages(shape: dict[str, Any]) -> str:
    names = ["encode", "select", "prefill", "per_token"]
    rows = {"bare": shape["bare_seconds"], **{n: r["seconds"] for n, r in shape["methods"].items()}}
    lines = ["| method | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, taken in rows.items():
        cells = " | ".join(f"{1000 * taken[n]:.1f}" for n in names)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


SECTIONS: dict[str, tuple[Measure, Page]] = {
    "prefill": (lambda asked, keep: keep(calls(asked.rounds)), table),
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
