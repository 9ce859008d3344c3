"""The catalogue of published systems: name, paper, and where each one acts.

The rows are in `systems.json`, one line per system, sorted by slug. There are three kinds:

- **Seeds**: the 77 papers that foveate covers. `seed` numbers them 1..77 in alphabetical order of
  their slugs.
- **Second systems** of a seed paper, such as the benchmark that was published with a method. They
  have no number; `part_of` is the slug of the seed.
- **Peers**: systems that users compare the seeds with. They have neither a number nor a `part_of`.

This module loads no torch and knows no method class. The caller decides whether a system can be
created, see `SystemRow.info`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

SYSTEM_STAGES = (
    "frames",
    "encoders",
    "tokens",
    "projectors",
    "layers",
    "caches",
    "decoding",
    "pipelines",
    "training",
    "generation",
    "benchmarks",
    "tuning",
)
"""Stages at which a system can act, in the order of the data, then the work around a model."""

WHERE = {
    "frames": "before the vision encoder",
    "encoders": "inside the vision encoder",
    "tokens": "before the LLM",
    "projectors": "in the projector",
    "layers": "inside the LLM",
    "caches": "in the KV cache",
    "decoding": "while decoding",
    "pipelines": "around the model",
    "training": "in training",
    "generation": "in generation of images or videos",
    "benchmarks": "benchmark",
    "tuning": "budget search",
}
"""The stages in words, as pages and command lines show them."""


def where(stages: Iterable[str]) -> str:
    """Stages in words: "before the LLM, inside the LLM"."""
    return ", ".join(WHERE[stage] for stage in stages)


@dataclass(frozen=True)
class MethodInfo:
    """One entry of `foveate.catalog()`.

    Attributes:
        slug: Name for `foveate.create`.
        name: Name in the paper.
        title: Title of the paper.
        year: Year in which the paper first appeared.
        paper: arXiv id, as in "arXiv 2503.02175", or where the official code is.
        stages: Subset of `SYSTEM_STAGES`, in that order.
        trained: Whether it has learned weights.
        seed: 1..77 or None.
        status: "available" if `foveate.create(slug)` works, else "planned".
    """

    slug: str
    name: str
    title: str
    year: int | None
    paper: str
    stages: tuple[str, ...]
    trained: bool
    seed: int | None
    status: str


@dataclass(frozen=True)
class SystemRow:
    """One published system.

    Attributes:
        slug: Name for `foveate.create`.
        name: Name in the paper.
        title: Title of the paper.
        year: Year in which the paper first appeared.
        venue: Where it was accepted. None for a preprint.
        paper: arXiv id, as in "arXiv 2503.02175", or where the official code is.
        stages: Subset of `SYSTEM_STAGES`, in that order.
        trained: Whether it has learned weights.
        seed: 1..77 or None.
        part_of: Slug of the seed that shares the paper with this system, or None.
    """

    slug: str
    name: str
    title: str
    year: int | None
    venue: str | None
    paper: str
    stages: tuple[str, ...]
    trained: bool
    seed: int | None
    part_of: str | None

    def info(self, available: bool) -> MethodInfo:
        """This row as a catalogue entry; `available`: a method with this slug is registered."""
        return MethodInfo(
            slug=self.slug,
            name=self.name,
            title=self.title,
            year=self.year,
            paper=self.paper,
            stages=self.stages,
            trained=self.trained,
            seed=self.seed,
            status="available" if available else "planned",
        )


def systems() -> dict[str, SystemRow]:
    """All published systems by slug, in alphabetical order. The file is read once per process."""
    return {row.slug: row for row in _rows()}


@functools.cache
def _rows() -> tuple[SystemRow, ...]:
    text = resources.files("foveate").joinpath("systems.json").read_text(encoding="utf-8")
    return tuple(SystemRow(**{**row, "stages": tuple(row["stages"])}) for row in json.loads(text))
