"""Pages from stored results: `python -m perf --render` measures nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foveate.training import card
from perf import dymu

# The columns that several pages share.
THEORETICAL = "- **Theoretical speed-up**: prefill FLOPs of the full model / with the method."
EFFICIENCY = "- **Speed-up efficiency**: measured / theoretical speed-up."
SHORT_PROMPT = (
    "- **vs. equally short prompt**: measured speed-up / speed-up of the full model on a prompt "
    "that is already that short. At 1.00 only the hardware limits the speed-up. A dash means: not "
    "measured, or the method changes what a layer computes."
)

# From a result to the body of its page.
Page = Callable[[dict[str, Any]], str]


def heading(result: dict[str, Any]) -> str:
    """The first lines of a page: the device, the commands and the versions."""
    machine, commands = result["machine"], ", then ".join(f"`{c}`" for c in result["commands"])
    return (
        f"# Speed on {machine['device']}\n\n"
        f"{commands}: {machine['dtype']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"transformers {machine['transformers']}. Medians of interleaved runs in one process. "
        "Weights and features are random: speed depends on shapes and on the number of kept "
        "tokens, not on the values of weights.\n\n"
    )


def pages(folder: Path, bodies: Mapping[str, Page]) -> dict[Path, str]:
    """The page of every result in a folder.

    Args:
        folder: holds one JSON file per result; the page gets the same name.
        bodies: the page functions by section, as `python -m perf --only` names sections.
    """
    return {
        path.with_suffix(".md"): page(path.stem, json.loads(path.read_text()), bodies)
        for path in sorted(folder.glob("*.json"))
    }


def page(stem: str, result: dict[str, Any], bodies: Mapping[str, Page]) -> str:
    """The page of one result, whose file is called `stem`."""
    if "trains" in result:
        return card.markdown(result)
    if stem.startswith("dymu"):
        return dymu.page(result)
    section = "prefill" if stem in ("cpu", "cuda") else stem.removesuffix("_cuda")
    return heading(result) + bodies[section](result)
