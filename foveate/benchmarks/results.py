"""From rows to figures: retained skill with intervals, comparisons with chance, K90, summaries."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from foveate.benchmarks.errors import BenchError
from foveate.benchmarks.metrics import SPAN, VACUOUS, Cell, Interval, Summary
from foveate.benchmarks.run_folder import RunFolder
from foveate.benchmarks.statistics import (
    interval,
    mcnemar,
    resampled,
    retained,
    smallest_keep,
    wilson,
)


class Results:
    """The rows of one run, and every figure that follows from them."""

    def __init__(self, configuration: dict[str, Any], rows: list[dict[str, Any]]):
        self.configuration = configuration
        self.rows = rows
        self._by_key: dict[tuple, dict[str, dict]] = defaultdict(dict)
        for row in rows:
            if "right" in row:
                key = (row["name"], row["keep"], row["seed"], row["k"])
                self._by_key[key][row["task"]] = row

    @classmethod
    def load(cls, folder: str | Path) -> Results:
        """The results in a folder that `run` wrote."""
        ledger = RunFolder.load(folder)
        if not ledger.rows:
            raise BenchError(f"{str(folder)!r} holds no finished setting yet; run the bench in it.")
        return cls(ledger.configuration, ledger.rows)

    @cached_property
    def tasks(self) -> list[str]:
        """Tasks that were measured with all tokens and without a picture, in order of running."""
        seen = dict.fromkeys(row["task"] for row in self.rows)
        return [t for t in seen if self.row(t, "full", 1.0) and self.row(t, "blind")]

    @cached_property
    def keeps(self) -> list[float]:
        """Shares below 100 %, largest first."""
        found = {row["keep"] for row in self.rows if row["keep"] is not None and row["keep"] < 1}
        return sorted(found, reverse=True)

    @cached_property
    def names(self) -> list[str]:
        """Names of everything that was run at several keeps, methods first."""
        kinds = {row["name"]: row["role"] for row in self.rows if row["keep"] in self.keeps}
        return sorted(kinds, key=lambda name: kinds[name] != "method")

    def role(self, name: str) -> str:
        """ "method" or "control"."""
        return next(row["role"] for row in self.rows if row["name"] == name)

    def row(
        self,
        task: str,
        name: str,
        keep: float | None = None,
        seed: int | None = None,
        k: int | None = None,
    ) -> dict[str, Any] | None:
        """The row of one setting, None where it did not run."""
        return self._by_key.get((name, keep, seed, k), {}).get(task)

    def repeats(self, task: str, name: str, keep: float) -> list[dict[str, Any]]:
        """The rows of all seeds of one setting, lowest seed first."""
        made = [
            (seed or 0, rows[task])
            for (known, share, seed, _), rows in self._by_key.items()
            if known == name and share == keep and task in rows
        ]
        return [row for _, row in sorted(made, key=lambda pair: pair[0])]

    def answers(self, row: dict[str, Any]) -> np.ndarray:
        """Right or wrong per item, (n,) of 0 and 1."""
        return np.frombuffer(row["right"].encode(), dtype=np.uint8) - ord("0")

    def zero(self, task: str) -> dict[str, Any]:
        """The row that defines 0: mean-colour pictures or the best constant answer."""
        rows = [self.row(task, "blind"), self.row(task, "constant")]
        return max((r for r in rows if r), key=lambda r: r["accuracy"])

    def one(self, task: str) -> dict[str, Any]:
        """The row that defines 1: all tokens."""
        return self._by_key["full", 1.0, None, None][task]

    def span(self, task: str) -> tuple[float, float]:
        """Accuracies of blind and full, which define R = 0 and R = 1."""
        return self.zero(task)["accuracy"], self.one(task)["accuracy"]

    @cached_property
    def _draws(self) -> dict[str, dict[str, np.ndarray]]:
        """Per task and `right` string the bootstrap means (draws,); equal answers share theirs."""
        made = {}
        for task in self.tasks:
            n = self.one(task)["n"]
            rows = [r for r in self.rows if r["task"] == task and len(r.get("right", "")) == n]
            texts = list(dict.fromkeys(r["right"] for r in rows))
            table = np.stack([self.answers({"right": text}) for text in texts])
            made[task] = dict(zip(texts, resampled(table).T, strict=True))
        return made

    def _mean(self, task: str, rows: list[dict[str, Any]]) -> np.ndarray:
        return np.mean([self._draws[task][row["right"]] for row in rows], axis=0)

    def _skill_draws(self, task: str, rows: list[dict[str, Any]]) -> np.ndarray:
        blind = self._draws[task][self.zero(task)["right"]]
        full = self._draws[task][self.one(task)["right"]]
        return retained(self._mean(task, rows), blind, full)

    def skill(self, task: str, rows: list[dict[str, Any]]) -> tuple[float | None, Interval]:
        """Retained skill of rows of equal settings, their mean, with its interval."""
        value = float(retained(np.mean([r["accuracy"] for r in rows]), *self.span(task)))
        if not np.isfinite(value):
            return None, None
        return value, interval(self._skill_draws(task, rows))

    def cell(self, task: str, name: str, keep: float) -> Cell | None:
        """All figures of one method at one keep on one task; None where it did not run."""
        rows = self.repeats(task, name, keep)
        if not rows or task not in self.tasks or rows[0]["n"] != self.zero(task)["n"]:
            return None
        accuracy = float(np.mean([r["accuracy"] for r in rows]))
        n = rows[0]["n"]
        skill, skill_interval = self.skill(task, rows)
        gain = gain_interval = p = None
        chance = self.repeats(task, "random", keep)
        if chance and name != "random":
            gain = accuracy - float(np.mean([r["accuracy"] for r in chance]))
            gain_interval = interval(self._mean(task, rows) - self._mean(task, chance))
            p = mcnemar(self.answers(rows[0]), self.answers(chance[0]))
        return Cell(
            task=task,
            name=name,
            keep=keep,
            n=n,
            accuracy=accuracy,
            accuracy_interval=wilson(round(accuracy * n), n),
            skill=skill,
            skill_interval=skill_interval,
            gain=gain,
            gain_interval=gain_interval,
            p=p,
            tokens=float(np.mean([r["tokens_out"] for r in rows])),
            tokens_mean=float(np.mean([r["tokens_mean"] for r in rows])),
            flops=float(np.mean([r["flops"] for r in rows])),
            flops_share=float(np.mean([r["flops"] / r["flops_full"] for r in rows])),
            seconds={
                stage: float(np.median([r["seconds"].get(stage, 0.0) for r in rows]))
                for stage in rows[0]["seconds"]
            },
        )

    @cached_property
    def cells(self) -> dict[tuple[str, str, float], Cell]:
        """All cells below 100 % by task, name and keep."""
        found = {
            (task, name, keep): self.cell(task, name, keep)
            for task in self.tasks
            for name in self.names
            for keep in self.keeps
        }
        return {key: cell for key, cell in found.items() if cell is not None}

    def refusals(self) -> dict[tuple[str, float], str]:
        """By name and keep why a method could not run there."""
        return {(r["name"], r["keep"]): r["refused"] for r in self.rows if "refused" in r}

    def kept_tasks(self) -> list[str]:
        """Tasks that say something: full at least 30 points above blind."""
        return [t for t in self.tasks if self.span(t)[1] - self.span(t)[0] >= SPAN - 1e-9]

    def curve(self, name: str, tasks: list[str] | None = None) -> dict[float, float]:
        """Mean R by keep over `tasks`, by default the kept ones, where all of them have it."""
        tasks = self.kept_tasks() if tasks is None else tasks
        made = {}
        for keep in self.keeps:
            cells = [self.cells.get((task, name, keep)) for task in tasks]
            skills = [c.skill for c in cells if c is not None and c.skill is not None]
            if skills and len(skills) == len(tasks):
                made[keep] = float(np.mean(skills))
        return made

    def k90(self, name: str, tasks: list[str] | None = None) -> tuple[float | None, bool]:
        """Smallest keep with R of 0.9 on the mean curve, and whether it is the smallest measured.

        Keeping everything is R = 1 by definition, so there is always one where a curve exists.
        """
        curve = self.curve(name, tasks)
        if not curve:
            return None, False
        points = {**curve, 1.0: 1.0}
        found = smallest_keep(list(points), list(points.values()))
        return found, found == min(points)

    def summary(self, name: str) -> Summary:
        """One method over all kept tasks."""
        curve = self.curve(name)
        k90, below = self.k90(name)
        draws = self._curve_draws(name, list(curve))
        gain, gain_interval = self.lead(name, "random", self.kept_tasks()) or (None, None)
        return Summary(
            name=name,
            role=self.role(name),
            skill=float(np.mean(list(curve.values()))) if curve else None,
            skill_interval=interval(draws) if curve else None,
            gain=gain,
            gain_interval=gain_interval,
            k90=k90,
            below=below,
            keeps=len(curve),
        )

    def lead(self, name: str, base: str, tasks: list[str]) -> tuple[float, Interval] | None:
        """Mean R of `name` above `base` over `tasks` and the keeps of both, with its interval."""
        one, two = self.curve(name, tasks), self.curve(base, tasks)
        shared = [keep for keep in one if keep in two]
        if not shared or name == base:
            return None
        draws = self._curve_draws(name, shared, tasks) - self._curve_draws(base, shared, tasks)
        return float(np.mean([one[keep] - two[keep] for keep in shared])), interval(draws)

    def _curve_draws(
        self, name: str, keeps: list[float], tasks: list[str] | None = None
    ) -> np.ndarray:
        """Bootstrap draws of the mean R over `keeps` and `tasks`, by default all kept ones."""
        draws = [
            self._skill_draws(task, self.repeats(task, name, keep))
            for keep in keeps
            for task in (self.kept_tasks() if tasks is None else tasks)
        ]
        return np.mean(draws, axis=0) if draws else np.empty(0)

    @cached_property
    def summaries(self) -> list[Summary]:
        """All methods and controls; those that run at every keep first, best first."""
        made = [self.summary(name) for name in self.names]
        return sorted(made, key=lambda s: (-s.keeps, -(s.skill if s.skill is not None else -9.0)))

    def late_blind(self, task: str) -> dict[int, float | None]:
        """R by the layer k from which on no visual token is left."""
        rows = [self.row(task, "late_blind", k=k) for k in range(self.configuration["layers"])]
        return {row["k"]: self.skill(task, [row])[0] for row in rows if row}

    def boundaries(self) -> dict[str, int]:
        """First decoder layer with fewer tokens, of the methods that act in the language model."""
        return {
            row["name"]: row["boundary"]
            for row in self.rows
            if row.get("boundary") is not None and row["role"] == "method"
        }

    def vacuous(self, name: str) -> list[str]:
        """Kept tasks that a method inside the language model could not fail on.

        Those on which R stays about 1 with no visual token at all from its first boundary on.
        """
        k = self.boundaries().get(name)
        found = {task: self.late_blind(task).get(k) for task in self.kept_tasks()} if k else {}
        return [task for task, skill in found.items() if skill is not None and skill >= VACUOUS]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "configuration": self.configuration,
            "tasks": {
                task: {
                    "n": self.zero(task)["n"],
                    "zero": self.zero(task)["name"],
                    "blind": self.span(task)[0],
                    "full": self.span(task)[1],
                    "late_blind": self.late_blind(task),
                }
                for task in self.tasks
            },
            "kept_tasks": self.kept_tasks(),
            "vacuous": {name: self.vacuous(name) for name in self.boundaries()},
            "summary": [asdict(s) for s in self.summaries],
            "cells": [asdict(cell) for cell in self.cells.values()],
            "refused": [
                {"name": name, "keep": keep, "reason": reason}
                for (name, keep), reason in self.refusals().items()
            ],
        }
