"""`python -m perf.dymu --out DIR`: DyMU's merge thresholds and virtual unmerging on nano.

Thresholds are calibrated on training images. All results are on the test split. Unmerging on and
off are compared with the same merged tokens.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

import foveate
from foveate.mini.evaluate import evaluate
from foveate.mini.world import items

TASKS = ("I1", "I2", "I4", "I5", "I9")


def main() -> None:
    """Calibrate, measure, print, write JSON and Markdown."""
    parser = argparse.ArgumentParser(prog="python -m perf.dymu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("perf/results"))
    parser.add_argument("--n", type=int, default=250, help="test items per task")
    parser.add_argument("--calibrate", type=int, default=100, help="training images per task")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.5, 0.25])
    options = parser.parse_args()
    model, processor = foveate.mini("nano")
    tests = [item for task in TASKS for item in items(task, "test", options.n)]
    pictures = [i.image() for task in TASKS for i in items(task, "train", options.calibrate)]
    full = evaluate(model, processor, tests, progress=True)
    rows = [measure(model, processor, tests, pictures, keep, full) for keep in options.keep]
    result = {
        "command": f"python -m perf.dymu --n {options.n} --calibrate {options.calibrate} "
        f"--keep {' '.join(map(str, options.keep))}",
        "model": "nano",
        "items_per_task": options.n,
        "pictures_to_calibrate": len(pictures),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "foveate": foveate.__version__,
        "full": full.accuracy,
        "rows": rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "dymu.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "dymu.md").write_text(page(result))
    print(page(result))


def measure(model, processor, tests, pictures, keep: float, full) -> dict[str, Any]:
    """Token counts and accuracies at one retention ratio."""
    method = foveate.DyMU.calibrate(model, processor, pictures, keep=keep, progress=True)
    kept = counts(model, processor, [item.image() for item in tests], method)
    objects = torch.tensor([float(len(item.scene.objects + item.scene.texts)) for item in tests])
    size = torch.tensor([float(png(item.image())) for item in tests])
    found: dict[str, Any] = {
        "keep": keep,
        "thresholds": method.thresholds,
        "target": method.target(64),
        "kept": {
            "mean": float(kept.mean()),
            "std": float(kept.std()),
            "least": int(kept.min()),
            "most": int(kept.max()),
        },
        "correlation": {
            "objects": correlation(kept, objects),
            "png_bytes": correlation(kept, size),
        },
        "accuracy": {},
    }
    right = {}
    for name, settings in {
        "thresholds, unmerging": {},
        "thresholds": {"repeat_merged_tokens": False},
        "fixed, unmerging": {"merge_mode": "instance_level"},
        "fixed": {"merge_mode": "instance_level", "repeat_merged_tokens": False},
    }.items():
        variant = foveate.from_dict({**method.to_dict(), **settings})
        with foveate.attach(model, variant):
            seen = evaluate(model, processor, tests, progress=True)
        found["accuracy"][name] = seen.accuracy
        right[name] = torch.tensor([r.correct for r in seen.results])
    found["unmerging"] = {
        kind: paired(right[f"{kind}, unmerging"], right[kind]) for kind in ("thresholds", "fixed")
    }
    return found


def counts(model, processor, pictures, method) -> Tensor:
    """Visual tokens per image that enter the LLM."""
    kept: list[int] = []
    with foveate.attach(model, method), torch.no_grad():
        for first in range(0, len(pictures), 50):
            chunk = pictures[first : first + 50]
            pixels = processor.image_processor(images=chunk, return_tensors="pt")
            made = model.model.get_image_features(**pixels, return_dict=True)
            kept += [len(item.clusters.unique()) for item in made["foveate"].items]
    return torch.tensor(kept).float()


def png(picture) -> int:
    """Bytes of an image as PNG."""
    file = io.BytesIO()
    picture.save(file, "png", optimize=True)
    return file.tell()


def correlation(a: Tensor, b: Tensor) -> dict[str, float]:
    """Pearson and Spearman correlation."""
    pearson = float(torch.corrcoef(torch.stack([a, b]))[0, 1])
    ranks = torch.stack([ranked(x) for x in (a, b)])
    return {"pearson": pearson, "spearman": float(torch.corrcoef(ranks)[0, 1])}


def ranked(x: Tensor) -> Tensor:
    """Ranks; equal values get their mean rank."""
    _, group = x.unique(return_inverse=True)
    order = group.argsort(stable=True).argsort().float()
    total = torch.zeros(int(group.max()) + 1).scatter_reduce(
        0, group, order, "mean", include_self=False
    )
    return total[group]


def paired(on: Tensor, off: Tensor) -> dict[str, float]:
    """Items that only one of two runs answers correctly, and a two-sided sign test."""
    better, worse = int((on & ~off).sum()), int((off & ~on).sum())
    n, k = better + worse, min(better, worse)
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n if n else 0.5
    gain = (better - worse) / len(on)
    return {"gain": gain, "only_on": better, "only_off": worse, "p": min(1.0, 2 * tail)}


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# DyMU on nano",
        "",
        f"`{result['command']}`",
        "",
        f"{result['items_per_task']} test items per task. Thresholds are calibrated on "
        f"{result['pictures_to_calibrate']} training images. Greedy decoding. torch "
        f"{result['torch']}, transformers {result['transformers']}, foveate {result['foveate']}.",
        "",
        "Visual tokens after merging, and their correlation (Pearson) with the number of objects "
        "in the image and with its size as PNG:",
        "",
        "| keep | target tokens | mean | min - max | r, objects | r, PNG bytes |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        kept, r = row["kept"], row["correlation"]
        lines.append(
            f"| {row['keep']:.3g} | {row['target']} | {kept['mean']:.2f} | {kept['least']} - "
            f"{kept['most']} | {r['objects']['pearson']:.2f} | {r['png_bytes']['pearson']:.2f} |"
        )
    lines += [
        "",
        "Accuracy in %. Thresholds: every image has its own number of tokens. Fixed: every image "
        "has the target number.",
        "",
        f"| keep | merging | {' | '.join(TASKS)} | mean |",
        f"|--:|---|{'--:|' * (len(TASKS) + 1)}",
        accuracies("1", "none (full model)", result["full"]),
    ]
    for row in result["rows"]:
        for name, accuracy in row["accuracy"].items():
            lines.append(accuracies(f"{row['keep']:.3g}", name, accuracy))
    lines += [
        "",
        "Virtual unmerging on compared with off, same merged tokens, all tasks together:",
        "",
        "| keep | merging | accuracy gain, points | correct only with | correct only without "
        "| p (sign test) |",
        "|--:|---|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        for kind, test in row["unmerging"].items():
            lines.append(
                f"| {row['keep']:.3g} | {kind} | {100 * test['gain']:+.1f} | {test['only_on']} | "
                f"{test['only_off']} | {test['p']:.2g} |"
            )
    return "\n".join(lines) + "\n"


def accuracies(keep: str, name: str, accuracy: dict[str, float]) -> str:
    """One row of the accuracy table."""
    numbers = [100 * accuracy[task] for task in TASKS]
    cells = " | ".join(f"{x:.1f}" for x in [*numbers, sum(numbers) / len(numbers)])
    return f"| {keep} | {name} | {cells} |"


if __name__ == "__main__":
    main()
