"""Measurements of a search, each on disk when it is done, so that none is made twice."""

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
from foveate.tuning.pictures import Pictures

PARTS = ("fit", "held_out")


class Evaluations(RunFolder):
    """The measurements of one search."""

    fields = frozenset({"part", "source", "method", "right"})
    origin = ("a search", "foveate tune --out")

    @classmethod
    def start(cls, folder: Path | None, configuration: dict[str, Any]) -> Evaluations:
        """What a folder holds of the same search, a new one in it, or one in memory for None."""
        if folder is None:
            return cls(Path(), configuration, [])
        found = cls.open(folder, configuration)
        found.kept = True
        return found

    kept = False

    def add(self, row: dict[str, Any]) -> None:
        """Take a row in; it is on disk when this returns, where there is a folder."""
        if self.kept:
            super().add(row)
        else:
            self.rows.append(row)


@dataclass(frozen=True)
class Score:
    """What a setting did on a part: right (n,) of 0 and 1, and means per sample.

    cost: FLOPs of the language model's prefill over those of the bare model. source: who proposed
    it. tokens: visual ones, mean over the decoder's layers. refused: why the method can't be run
    so, and nothing else then.
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
        """Share of right answers, 0 for a refused setting."""
        return float(self.right.mean()) if len(self.right) else 0.0


class Evaluator:
    """Measures methods on the parts of the samples; what the ledger knows is not run again.

    batches: per part and mode. watch(score) is told of every score on the part that is fitted.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        batches: dict[str, dict[str, list[Batch]]],
        ledger: Evaluations,
        watch: Callable[[Score], None] = lambda score: None,
    ):
        self._subject: Any = SimpleNamespace(model=model, processor=processor)
        self._batches = batches
        self._ledger = ledger
        self._watch = watch
        self._pictures = {part: Pictures(model) for part in batches}
        self._known = {(row["part"], _key(row["method"])): _score(row) for row in ledger.rows}
        self.scores: dict[str, Score] = {}
        self.run = 0

    def __call__(self, method: Method, source: str, part: str = "fit") -> Score:
        """The score of `method` on a part."""
        plain = method.to_dict()
        key = part, _key(plain)
        if key not in self._known:
            row = {"part": part, "source": source, "method": plain, **self._measured(method, part)}
            self._ledger.add(row)
            # As the file has it, so that a search that goes on compares the same.
            self._known[key] = _score(json.loads(json.dumps(row)))
            self.run += 1
        score = self._known[key]
        if part == "fit":
            self.scores.setdefault(key[1], score)
            self._watch(score)
        return score

    def _measured(self, method: Method, part: str) -> dict[str, Any]:
        pictures = self._pictures[part]
        pictures.turn_to(method)
        right: dict[int, int] = {}
        sums: dict[str, float] = {}
        try:
            for mode, batches in self._batches[part].items():
                outcome = evaluate_method(
                    self._subject, batches, method, mode, inputs=pictures.inputs
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
