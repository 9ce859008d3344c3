"""The catalogue of published systems: what each is called, where it was published, where it acts.

The rows stand in `systems.json` beside this file, one line per system, sorted by slug. There are
three kinds:

- **Seeds**: the 77 papers that foveate sets out to cover. `seed` counts them 1..77 in alphabetical
  order of their slugs: the number names a paper, it ranks nothing.
- **Second halves** of a seed paper that also stands here under another slug, such as the benchmark
  that came with a method. They carry no number of their own; `part_of` is the slug that does.
- **Peers**: systems that users compare the seeds with. They have neither a number nor a `part_of`.

Importing this module costs nothing: it loads no torch and knows no method class. Whether a system
can be created is therefore the caller's to say, see `SystemRow.info`.
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

    `stages` is a subset of `SYSTEM_STAGES` in that order. `seed` is 1..77 or None. `status` is
    "available" when `foveate.create(slug)` works and "planned" otherwise.
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

    `name` is the paper's own word for it. `year` is the year in which the paper first appeared,
    `venue` where it was accepted (None: a preprint, or not known). `paper` is its arXiv id, as in
    "arXiv 2503.02175", or, without one, where the official code stands. `trained` says that the
    system comes with weights of its own. `part_of` is the slug of the seed whose paper this system
    is the other half of.
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
        """This row as a catalogue entry; `available`: a method of this slug is registered."""
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
