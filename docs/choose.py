"""The table of docs/choose-a-method.md: methods compared, from code and stored results."""

from __future__ import annotations

from pathlib import Path

import foveate
from docs import runs
from docs.markers import insert
from foveate.benchmarks.key_findings import absent
from foveate.benchmarks.tables import DAGGER, MISSING, label, missing, number, whole_percent
from foveate.catalogue import describe
from foveate.family_support import family_count
from foveate.method import method_class
from foveate.systems import where

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/choose-a-method.md"
KEEPS = (0.25, 0.1)


def page() -> str:
    """The page with its table written anew."""
    return insert(PAGE.read_text(), "choose", table())


def table() -> str:
    """The table and its legend, the highest normalised accuracy at 25 % first.

    Methods without a figure at 25 % are last.
    """
    results = runs.results("image-bench")
    rows = []
    for info in foveate.catalog():
        if info.status == "available":
            found = results.curve(info.slug)
            rows.append((-found.get(KEEPS[0], -1.0), info.slug, describe(info.slug), found))
    lines = [
        "| method | where | sees the question | models | learned modules | accuracy at 25 % "
        "| at 10 % | prefill FLOPs at 25 % |",
        "|---|---|---|---|---|--:|--:|--:|",
    ]
    for _, slug, known, found in sorted(rows, key=lambda row: row[:2]):
        cost = results.flops_share(slug, KEEPS[0])
        cells = (
            f"[`{slug}`](methods/{slug}.md){label(results, slug).removeprefix(slug)}",
            where(known["stages"]),
            _sees_question(slug),
            family_count(slug),
            "yes" if known["trained"] else "no",
            *(
                number(found[keep]) if keep in found else missing(results, slug, keep)
                for keep in KEEPS
            ),
            missing(results, slug, KEEPS[0]) if cost is None else whole_percent(cost),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", " ".join([MISSING, DAGGER, *absent(results)])])


def _sees_question(slug: str) -> str:
    cls = method_class(slug)
    if cls.prompt_agnostic:
        return "no"
    return "only before the image" if cls.text_before_image_only else "yes"
