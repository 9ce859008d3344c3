"""Test-time adaptation benchmark: zero-shot accuracy of CLIP and TCA under distribution shifts.

    python -m foveate.benchmarks.adaptation --out runs/adaptation

A stream is one kind of class under one shift. All methods get the same images in the same order,
and start with an empty state. Each finished stream is appended to `results.jsonl`: after an
interruption, run the same command again to continue.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foveate.benchmarks.adaptation_tables import MARK, paste, tables
from foveate.benchmarks.errors import BenchError
from foveate.classifier import zero_shot
from foveate.errors import FoveateError
from foveate.method import Method
from foveate.methods.encoders.tca import TCA
from foveate.mini.progress import bar
from foveate.mini.world.classes import KINDS, PROMPTS, labelled
from foveate.mini.world.keys import WORLD_VERSION, generator
from foveate.mini.world.render import render
from foveate.mini.world.scene import Canvas
from foveate.mini.world.shifts import SHIFTS, shifted

NONE = "none"
# reservoir_size=0: token condensing without adaptation. centers=0: EViT.
METHODS: dict[str, Callable[[], Method | None]] = {
    "CLIP": lambda: None,
    "EViT 0.1": lambda: TCA(delta=0.1, centers=0, reservoir_size=0),
    "condensing 0.1": lambda: TCA(delta=0.1, reservoir_size=0),
    "TCA 0": lambda: TCA(delta=0.0),
    "TCA 0.035": lambda: TCA(delta=0.035),
    "TCA 0.1": lambda: TCA(delta=0.1),
}


def stream(
    kind: str, shift: str, severity: int, n: int, canvas: Canvas, seed: int
) -> tuple[list[np.ndarray], list[str], tuple[str, ...]]:
    """Images uint8 (S, S, 3) of a kind under a shift in random order, their labels, the classes."""
    rng = generator("test", f"stream-{kind}", seed, "order")
    shown = [labelled(kind, "test", int(i), canvas) for i in rng.permutation(n)]
    pixels, _ = render([s.scene for s in shown])
    pictures = list(pixels.numpy())
    if shift != NONE:
        # The noise of an image depends only on its index in the stream and the seed.
        pictures = [
            shifted(p, shift, severity, generator("test", f"shift-{shift}", i, str(seed)))
            for i, p in enumerate(pictures)
        ]
    return pictures, [s.label for s in shown], shown[0].classes


def measured(
    model: Any, processor: Any, method: Method | None, kind: str, views, labels, classes
) -> dict:
    """Answers (1 correct, 0 wrong) for images (1, 3, H, W), and the mean vision encoder cost."""
    naming = zero_shot(model, processor, classes, method, templates=PROMPTS[kind])
    right, tokens, flops, full = [], [], 0, 0
    began = time.perf_counter()
    for view, label in zip(views, labels, strict=True):
        said = naming(view)
        right.append(int(said.label == label))
        tokens.append(said.tokens)
        flops, full = flops + said.flops, full + said.flops_full
    n = len(labels)
    return {
        "right": right,
        "accuracy": sum(right) / n,
        "tokens": [round(float(t), 1) for t in np.mean(tokens, axis=0)],
        "flops": round(flops / n),
        "flops_full": round(full / n),
        "seconds": round(time.perf_counter() - began, 2),
    }


def run(
    model: Any,
    processor: Any,
    out: Path,
    *,
    name: str,
    kinds: Sequence[str],
    shifts: Sequence[str],
    severity: int,
    n: int,
    seed: int = 0,
    progress: bool = True,
) -> list[dict]:
    """All rows of the settings; stored ones are read from `out/results.jsonl`."""
    vision = model.config.vision_config
    canvas = Canvas(vision.image_size, vision.patch_size)
    asked = {"model": name, "world": WORLD_VERSION, "severity": severity, "n": n, "seed": seed}
    path = out / "results.jsonl"
    rows = _read(path, asked)
    done = {(r["kind"], r["shift"], r["method"]) for r in rows}
    settings = [(k, s) for k in kinds for s in shifts]
    with bar("classifying images", len(settings) * len(METHODS), show=progress) as tick:
        for i, (kind, shift) in enumerate(settings):
            if all((kind, shift, m) in done for m in METHODS):
                continue
            pictures, *told = stream(kind, shift, severity, n, canvas, seed)
            views = processor(images=pictures, return_tensors="pt")["pixel_values"].split(1)
            for j, (label, made) in enumerate(METHODS.items()):
                if (kind, shift, label) not in done:
                    found = measured(model, processor, made(), kind, views, *told)
                    row = {
                        "kind": kind,
                        "shift": shift,
                        "method": label,
                        "parameters": repr(made()),
                    }
                    rows.append(row | found | asked | _machine())
                    with path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
                tick(i * len(METHODS) + j + 1, f"{kind}, {shift}")
    return [r for r in rows if r["kind"] in kinds and r["shift"] in shifts]


def _read(path: Path, asked: dict) -> list[dict]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except OSError as error:
        raise BenchError(f"{str(path.parent)!r} can't be written ({error.strerror}).") from None
    rows = [json.loads(line) for line in lines]
    for row in rows:
        other = [k for k, v in asked.items() if row[k] != v]
        if other:
            raise BenchError(
                f"{str(path)!r} has rows with {other[0]}={row[other[0]]!r} instead of "
                f"{asked[other[0]]!r}: use another folder with --out."
            )
    return rows


def _machine() -> dict:
    import transformers

    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": platform.machine() + " CPU",
        "threads": torch.get_num_threads(),
    }


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m foveate.benchmarks.adaptation")
    parser.add_argument("--model", default="clip", help="embedded CLIP model")
    parser.add_argument("--kinds", default="shape,place", help=f"kinds of {','.join(KINDS)}")
    parser.add_argument("--shifts", default="all", help=f"shifts of {NONE},{','.join(SHIFTS)}")
    parser.add_argument("--severity", type=int, default=3, help="1 to 5")
    parser.add_argument("--n", type=int, default=200, help="images per stream")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"))
    parser.add_argument("--page", type=Path, help=f"write the tables between two {MARK} marks")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    return parser


def _chosen(text: str, known: Sequence[str], every: str) -> Iterator[str]:
    for word in known if text == every else text.split(","):
        if word not in known:
            raise BenchError(f"{word!r} is not one of {', '.join(known)}.")
        yield word


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    from foveate import mini

    asked = _arguments().parse_args(arguments)
    try:
        kinds = list(_chosen(asked.kinds, tuple(KINDS), "all"))
        shifts = list(_chosen(asked.shifts, (NONE, *SHIFTS), "all"))
        if asked.n < 10:
            raise BenchError(f"n={asked.n} is too small: use 10 or more.")
        model, processor = mini.load(asked.model)
        rows = run(
            model, processor, asked.out, name=mini.ROLES.get(asked.model, asked.model),
            kinds=kinds, shifts=shifts, severity=asked.severity, n=asked.n, seed=asked.seed,
            progress=not asked.json,
        )  # fmt: skip
        text = tables(rows)
        if asked.page is not None:
            paste(asked.page, text)
    except FoveateError as error:
        sys.exit(f"Error: {error}")
    print(json.dumps(rows) if asked.json else text)


if __name__ == "__main__":
    main()
