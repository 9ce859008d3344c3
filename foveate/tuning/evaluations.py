"""Measurements of a search, each saved when it is done: no setting is measured twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from foveate.benchmarks.evaluation import evaluate_method
from foveate.benchmarks.run_folder import RunFolder
from foveate.benchmarks.task_items import Batch
from foveate.errors import FoveateError
from foveate.method import Method
from foveate.tuning.encoded_images import EncodedImages

PARTS = ("fit", "held_out")
"""Search split and held-out split, as stored rows and plans name them."""


class Evaluations(RunFolder):
    """The stored measurements of one search."""

    fields = frozenset({"part", "source", "method", "right"})
    origin = ("foveate tune", "foveate tune --out")

    @classmethod
    def start(cls, folder: Path | None, configuration: dict[str, Any]) -> Evaluations:
        """The measurements in a folder, continued or new; in memory only if `folder` is None."""
        if folder is None:
            return cls(Path(), configuration, [])
        found = cls.open(folder, configuration)
        found.kept = True
        return found

    kept = False

    def add(self, row: dict[str, Any]) -> None:
        """Add a row; if there is a folder, it is on disk when this returns."""
        if self.kept:
            super().add(row)
        else:
            self.rows.append(row)


@dataclass(frozen=True)
class Score:
    """The measurement of one setting on one split.

    Attributes:
        method: the method as `Method.to_dict` gives it.
        source: what proposed the setting: "bare model", "sweep", "p-sigmoid" or "g-search".
        right: answers (n,), 1 correct and 0 wrong.
        flops: prefill FLOPs of the LLM and FLOPs of the token selection, per sample.
        cost: `flops` over the prefill FLOPs of the full model.
        tokens: visual tokens per sample, mean over the decoder layers.
        refused: why the setting cannot run; "" if it can. All other values are empty then.
    """

    method: dict[str, Any]
    source: str
    right: np.ndarray
    flops: float = 0.0
    cost: float = 1.0
    tokens: float = 0.0
    refused: str = ""

    @property
    def accuracy(self) -> float:
        """Share of correct answers; 0 for a refused setting."""
        return float(self.right.mean()) if len(self.right) else 0.0


class Evaluator:
    """Measures methods on the two splits; stored measurements are not repeated.

    Args:
        model: the model.
        processor: its processor.
        batches: prepared batches by split ("fit", "held_out") and answer mode.
        stored: the stored measurements.
        watch: called with every score on the search split.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        batches: dict[str, dict[str, list[Batch]]],
        stored: Evaluations,
        watch: Callable[[Score], None] = lambda score: None,
    ):
        self._subject: Any = SimpleNamespace(model=model, processor=processor)
        self._batches = batches
        self._stored = stored
        self._watch = watch
        self._encoded = {part: EncodedImages(model) for part in batches}
        self._known = {(row["part"], _key(row["method"])): _score(row) for row in stored.rows}
        self.scores: dict[str, Score] = {}
        self.run = 0

    def __call__(self, method: Method, source: str, part: str = "fit") -> Score:
        """The score of `method` on the search split ("fit") or the held-out split."""
        plain = method.to_dict()
        key = part, _key(plain)
        if key not in self._known:
            row = {"part": part, "source": source, "method": plain, **self._measured(method, part)}
            self._stored.add(row)
            # Through JSON, so that a continued search compares exactly the same numbers.
            self._known[key] = _score(json.loads(json.dumps(row)))
            self.run += 1
        score = self._known[key]
        if part == "fit":
            self.scores.setdefault(key[1], score)
            self._watch(score)
        return score

    def _measured(self, method: Method, part: str) -> dict[str, Any]:
        encoded = self._encoded[part]
        encoded.prepare(method)
        right: dict[int, int] = {}
        sums: dict[str, float] = {}
        try:
            for mode, batches in self._batches[part].items():
                outcome = evaluate_method(
                    self._subject, batches, method, mode, inputs=encoded.inputs
                )
                numbers = sorted(n for batch in batches for n in batch.numbers)
                right |= dict(zip(numbers, outcome.right.tolist(), strict=True))
                for name in ("flops", "flops_full", "tokens_mean"):
                    total = getattr(outcome, name) * len(numbers)
                    sums[name] = sums.get(name, 0.0) + total
        except FoveateError as error:
            return {"right": "", "refused": " ".join(str(error).split())}
        n = len(right)
        answers = "".join(str(right[i]) for i in sorted(right))
        return {"right": answers, **{name: total / n for name, total in sums.items()}}


def _score(row: dict[str, Any]) -> Score:
    right = np.array([int(c) for c in row["right"]], dtype=int)
    if row.get("refused"):
        return Score(row["method"], row["source"], right, refused=row["refused"])
    return Score(
        row["method"],
        row["source"],
        right,
        row["flops"],
        row["flops"] / row["flops_full"],
        row["tokens_mean"],
    )


def _key(method: dict[str, Any]) -> str:
    return json.dumps(method, sort_keys=True)
