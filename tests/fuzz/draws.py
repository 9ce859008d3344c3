"""What one fuzzed call is made of, drawn from a seed and a number alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from foveate.errors import FoveateError
from foveate.method import Method, method_class, registered
from tests.families import zoo
from tests.methods.made import made

CALLS = (
    *("generate", "generate", "generate", "forward", "forward", "keep_all", "again", "detach"),
    *("beams", "static", "eager", "turns", "several", "lookup"),
    *("labels", "checkpointed", "order", "short"),
)
# A keep as people write it.
KEEPS: tuple[Any, ...] = (
    *(0.5, 0.5, 0.5, 0.25, 0.75, 0.9, 0.6, 0.1, 1.0, 1, 3, 6, 12),
    *(np.float32(0.5), np.int64(8), torch.tensor(0.5), torch.tensor(6)),
)


@dataclass(frozen=True)
class Draw:
    """One fuzzed call.

    samples: per row what it holds, "0", "1", "01" (both), "101", "t0" (text alone). seed: of
    everything that a call draws itself.
    """

    number: int
    family: str
    modality: str
    samples: tuple[str, ...]
    padding: int
    side: str
    described: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]
    call: str
    dtype: torch.dtype
    steps: int = 3
    seed: int = field(default=0, compare=False)

    def method(self) -> Method:
        """The method or composition."""
        parts = [made(slug, **dict(parameters)) for slug, parameters in self.described]
        whole = parts[0]
        for part in parts[1:]:
            whole = whole + part
        return whole

    def whole(self) -> Method:
        """The same with every token kept."""
        parts = [method_class(slug) for slug, _ in self.described]
        made_ = [made(c.slug, **c.bare) for c in parts]
        method = made_[0]
        for part in made_[1:]:
            method = method + part
        return method

    def rows(self) -> list[zoo.Sample]:
        """The samples of the rows."""
        return [_sample(self.family, self.modality, row) for row in self.samples]

    def inputs(self, rows: list[zoo.Sample] | None = None) -> dict[str, Any]:
        """Arguments of the call with these rows, padded as drawn."""
        rows = self.rows() if rows is None else rows
        batch = zoo.batch(self.family, rows, self.padding)
        return _turned(batch) if self.side == "right" else batch

    def __str__(self) -> str:
        method = " + ".join(
            f"{slug}({', '.join(f'{k}={v!r}' for k, v in parameters)})"
            for slug, parameters in self.described
        )
        rows = ",".join(self.samples)
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"#{self.number} {self.family}-{self.modality} [{rows}] pad {self.padding} "
            f"{self.side} {dtype} {self.call}: {method}"
        )


def draw(seed: int, number: int) -> Draw:
    """Call `number` of a run; equal seeds and numbers give equal calls."""
    rng = random.Random(f"{seed}-{number}")
    family, modality = rng.choice(zoo.CASES)
    call = rng.choice(CALLS)
    count = 1 if call == "lookup" else rng.choice((1, 2, 2, 3))
    kinds = ["0", "1"] if modality == "video" else ["0", "1", "0", "1", "01", "101", "t0"]
    samples = [rng.choice(kinds) for _ in range(count)]
    if all(s.startswith("t") for s in samples):
        samples[0] = "0"
    side = "right" if call in ("forward", "labels", "checkpointed") and rng.random() < 0.4 else ""
    methods = tuple(_method(rng) for _ in range(rng.choice((1, 1, 1, 2, 2, 3))))
    return Draw(
        number=number,
        family=family,
        modality=modality,
        samples=tuple(samples),
        padding=rng.choice((0, 0, 1, 5)),
        side=side or "left",
        described=methods,
        call=call,
        dtype=torch.bfloat16 if rng.random() < 0.08 else torch.float32,
        steps=rng.choice((2, 3, 4)),
        seed=rng.randrange(2**31),
    )


def _method(rng: random.Random) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """A method that can be made at all, with a budget and positions."""
    while True:
        slug = rng.choice(list(registered()))
        parameters: dict[str, Any] = {}
        if method_class(slug).reduces and rng.random() < 0.9:
            parameters["keep"] = rng.choice(KEEPS)
        if rng.random() < 0.3:
            parameters["positions"] = rng.choice(("original", "packed"))
        try:
            made(slug, **parameters)
        except FoveateError:
            continue
        return slug, tuple(parameters.items())


def _sample(family: str, modality: str, row: str) -> zoo.Sample:
    if row.startswith("t"):
        return zoo.text_sample(family, int(row[1:]))
    first, *more = (zoo.sample(family, modality, int(i)) for i in row)
    for other in more:
        first = zoo.joined(family, first, other)
    return first


def _turned(batch: dict[str, Any]) -> dict[str, Any]:
    """The same rows padded on the right."""
    pads = (batch["attention_mask"] == 0).sum(1)
    out = dict(batch)
    for name in ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"):
        if name in batch:
            out[name] = torch.stack(
                [row.roll(-int(n)) for row, n in zip(batch[name], pads, strict=True)]
            )
    return out
