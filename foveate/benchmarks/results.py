"""From stored rows to metrics: normalised accuracy with intervals, gains over random, K90."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from foveate.benchmarks.errors import BenchError
from foveate.benchmarks.metrics import INSENSITIVE, SPAN, Cell, Interval, Summary
from foveate.benchmarks.run_folder import RunFolder
from foveate.benchmarks.statistics import (
    interval,
    mcnemar,
    normalised_accuracy,
    resampled,
    smallest_keep,
    wilson,
)


class Results:
    """The rows of one benchmark run, and the metrics computed from them.

    Rows have the names that they have on disk: "blind" is the model with constant-colour images,
    "constant" the best constant answer, "anti_oracle" the evidence tokens removed, "late_blind" no
    visual token after layer k.

    Args:
        configuration: the content of `run.json`: model, split, items per task, versions.
        rows: the rows of `results.jsonl`, one per setting.
    """

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
        """The results in a folder that `run` or `foveate bench` wrote."""
        run = RunFolder.load(folder)
        if not run.rows:
            raise BenchError(
                f"{str(folder)!r} has no finished setting yet: run 'foveate bench' first."
            )
        return cls(run.configuration, run.rows)

    @cached_property
    def tasks(self) -> list[str]:
        """Tasks with a measured full model and no-image baseline, in the order of the run."""
        seen = dict.fromkeys(row["task"] for row in self.rows)
        return [t for t in seen if self.row(t, "full", 1.0) and self.row(t, "blind")]

    @cached_property
    def keeps(self) -> list[float]:
        """Measured retention ratios below 1, largest first."""
        found = {row["keep"] for row in self.rows if row["keep"] is not None and row["keep"] < 1}
        return sorted(found, reverse=True)

    @cached_property
    def names(self) -> list[str]:
        """Methods, then controls, that were measured at a retention ratio below 1."""
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
        """The row of one setting, None if it did not run."""
        return self._by_key.get((name, keep, seed, k), {}).get(task)

    def repeats(self, task: str, name: str, keep: float) -> list[dict[str, Any]]:
        """The rows of one setting for all seeds, lowest seed first."""
        made = [
            (seed or 0, rows[task])
            for (known, share, seed, _), rows in self._by_key.items()
            if known == name and share == keep and task in rows
        ]
        return [row for _, row in sorted(made, key=lambda pair: pair[0])]

    def answers(self, row: dict[str, Any]) -> np.ndarray:
        """1 (correct) or 0 (wrong) per item, (n,)."""
        return np.frombuffer(row["right"].encode(), dtype=np.uint8) - ord("0")

    def no_image(self, task: str) -> dict[str, Any]:
        """The no-image baseline: the better of constant-colour images and a constant answer."""
        rows = [self.row(task, "blind"), self.row(task, "constant")]
        return max((r for r in rows if r), key=lambda r: r["accuracy"])

    def full_model(self, task: str) -> dict[str, Any]:
        """The row of the full model: all visual tokens."""
        return self._by_key["full", 1.0, None, None][task]

    def span(self, task: str) -> tuple[float, float]:
        """Accuracies of the no-image baseline and of the full model: 0 and 1 of the scale."""
        return self.no_image(task)["accuracy"], self.full_model(task)["accuracy"]

    @cached_property
    def _draws(self) -> dict[str, dict[str, np.ndarray]]:
        """Bootstrap means (draws,) by task and `right` string; equal answers share them."""
        made = {}
        for task in self.tasks:
            n = self.full_model(task)["n"]
            rows = [r for r in self.rows if r["task"] == task and len(r.get("right", "")) == n]
            texts = list(dict.fromkeys(r["right"] for r in rows))
            table = np.stack([self.answers({"right": text}) for text in texts])
            made[task] = dict(zip(texts, resampled(table).T, strict=True))
        return made

    def _mean(self, task: str, rows: list[dict[str, Any]]) -> np.ndarray:
        return np.mean([self._draws[task][row["right"]] for row in rows], axis=0)

    def _normalised_draws(self, task: str, rows: list[dict[str, Any]]) -> np.ndarray:
        no_image = self._draws[task][self.no_image(task)["right"]]
        full = self._draws[task][self.full_model(task)["right"]]
        return normalised_accuracy(self._mean(task, rows), no_image, full)

    def normalised_accuracy(
        self, task: str, rows: list[dict[str, Any]]
    ) -> tuple[float | None, Interval]:
        """Normalised accuracy, mean over `rows` (the seeds of one setting), with its interval."""
        value = float(normalised_accuracy(np.mean([r["accuracy"] for r in rows]), *self.span(task)))
        if not np.isfinite(value):
            return None, None
        return value, interval(self._normalised_draws(task, rows))

    def cell(self, task: str, name: str, keep: float) -> Cell | None:
        """All metrics of one method at one ratio on one task; None if it did not run."""
        rows = self.repeats(task, name, keep)
        if not rows or task not in self.tasks or rows[0]["n"] != self.no_image(task)["n"]:
            return None
        accuracy = float(np.mean([r["accuracy"] for r in rows]))
        n = rows[0]["n"]
        value, value_interval = self.normalised_accuracy(task, rows)
        gain = gain_interval = p = None
        baseline = self.repeats(task, "random", keep)
        if baseline and name != "random":
            gain = accuracy - float(np.mean([r["accuracy"] for r in baseline]))
            gain_interval = interval(self._mean(task, rows) - self._mean(task, baseline))
            p = mcnemar(self.answers(rows[0]), self.answers(baseline[0]))
        return Cell(
            task=task,
            name=name,
            keep=keep,
            n=n,
            accuracy=accuracy,
            accuracy_interval=wilson(round(accuracy * n), n),
            normalised_accuracy=value,
            normalised_accuracy_interval=value_interval,
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
        """All cells at ratios below 1, by task, name and ratio."""
        found = {
            (task, name, keep): self.cell(task, name, keep)
            for task in self.tasks
            for name in self.names
            for keep in self.keeps
        }
        return {key: cell for key, cell in found.items() if cell is not None}

    def refusals(self) -> dict[tuple[str, float], str]:
        """Why a method could not run, by name and ratio."""
        return {(r["name"], r["keep"]): r["refused"] for r in self.rows if "refused" in r}

    def kept_tasks(self) -> list[str]:
        """Scored tasks: the full model is at least 30 points above the no-image baseline."""
        return [t for t in self.tasks if self.span(t)[1] - self.span(t)[0] >= SPAN - 1e-9]

    def curve(self, name: str, tasks: list[str] | None = None) -> dict[float, float]:
        """Mean normalised accuracy over `tasks`, by retention ratio.

        Ratios at which the method did not run on every task are left out. tasks: default all
        scored tasks.
        """
        tasks = self.kept_tasks() if tasks is None else tasks
        made = {}
        for keep in self.keeps:
            cells = [self.cells.get((task, name, keep)) for task in tasks]
            values = [
                c.normalised_accuracy
                for c in cells
                if c is not None and c.normalised_accuracy is not None
            ]
            if values and len(values) == len(tasks):
                made[keep] = float(np.mean(values))
        return made

    def curve_interval(self, name: str, keep: float) -> Interval:
        """The 95 % interval of a method's mean normalised accuracy at one ratio."""
        return interval(self._curve_draws(name, [keep]))

    def k90(self, name: str, tasks: list[str] | None = None) -> tuple[float | None, bool]:
        """Smallest ratio with a mean normalised accuracy of 0.9, and whether it is an upper bound.

        At ratio 1 the normalised accuracy is 1 by definition, so that a curve always reaches 0.9.
        """
        curve = self.curve(name, tasks)
        if not curve:
            return None, False
        points = {**curve, 1.0: 1.0}
        found = smallest_keep(list(points), list(points.values()))
        return found, found == min(points)

    def summary(self, name: str) -> Summary:
        """One method over all scored tasks."""
        curve = self.curve(name)
        k90, below = self.k90(name)
        draws = self._curve_draws(name, list(curve))
        gain, gain_interval = self.lead(name, "random", self.kept_tasks()) or (None, None)
        return Summary(
            name=name,
            role=self.role(name),
            normalised_accuracy=float(np.mean(list(curve.values()))) if curve else None,
            normalised_accuracy_interval=interval(draws) if curve else None,
            gain=gain,
            gain_interval=gain_interval,
            k90=k90,
            below=below,
            keeps=len(curve),
        )

    def lead(self, name: str, base: str, tasks: list[str]) -> tuple[float, Interval] | None:
        """Normalised accuracy of `name` minus that of `base`, with its paired interval.

        Mean over `tasks` and the ratios at which both ran; None if there are none.
        """
        one, two = self.curve(name, tasks), self.curve(base, tasks)
        shared = [keep for keep in one if keep in two]
        if not shared or name == base:
            return None
        draws = self._curve_draws(name, shared, tasks) - self._curve_draws(base, shared, tasks)
        return float(np.mean([one[keep] - two[keep] for keep in shared])), interval(draws)

    def _curve_draws(
        self, name: str, keeps: list[float], tasks: list[str] | None = None
    ) -> np.ndarray:
        """Bootstrap draws of the mean normalised accuracy over `keeps` and `tasks`."""
        draws = [
            self._normalised_draws(task, self.repeats(task, name, keep))
            for keep in keeps
            for task in (self.kept_tasks() if tasks is None else tasks)
        ]
        return np.mean(draws, axis=0) if draws else np.empty(0)

    @cached_property
    def summaries(self) -> list[Summary]:
        """All methods and controls: those that run at every ratio first, then best first."""
        made = [self.summary(name) for name in self.names]
        return sorted(
            made,
            key=lambda s: (
                -s.keeps,
                -(s.normalised_accuracy if s.normalised_accuracy is not None else -9.0),
            ),
        )

    def flops_share(self, name: str, keep: float) -> float | None:
        """Prefill FLOPs with token selection, relative to the full model; None if it did not run.

        Mean over the scored tasks.
        """
        cells = [c for t in self.kept_tasks() if (c := self.cells.get((t, name, keep)))]
        return float(np.mean([c.flops_share for c in cells])) if cells else None

    def has_evidence(self, task: str) -> bool:
        """Whether the control "evidence removed" drops any token on this task."""
        row = self.row(task, "anti_oracle")
        return row is not None and row["tokens_out"] < row["tokens_in"]

    def without_visual_tokens(self, task: str) -> dict[int, float | None]:
        """Normalised accuracy by k, with all visual tokens dropped before layer k."""
        rows = [self.row(task, "late_blind", k=k) for k in range(self.configuration["layers"])]
        return {row["k"]: self.normalised_accuracy(task, [row])[0] for row in rows if row}

    def first_pruning_layers(self) -> dict[str, int]:
        """First decoder layer with fewer visual tokens, of methods that prune inside the LLM."""
        return {
            row["name"]: row["boundary"]
            for row in self.rows
            if row.get("boundary") is not None and row["role"] == "method"
        }

    def inside_llm(self, name: str) -> bool:
        """Whether a method acts inside the LLM, alone or besides other stages."""
        stages = (row.get("stages", ()) for row in self.rows if row["name"] == name)
        return any(stage in ("layers", "caches") for found in stages for stage in found)

    def insensitive_tasks(self, name: str) -> list[str]:
        """Scored tasks that cannot tell how well a method inside the LLM selects tokens.

        On these tasks the model reaches a normalised accuracy of 0.9 with no visual token at all
        from the first pruning layer of the method on.
        """
        k = self.first_pruning_layers().get(name)
        found = (
            {task: self.without_visual_tokens(task).get(k) for task in self.kept_tasks()}
            if k
            else {}
        )
        return [task for task, value in found.items() if value is not None and value >= INSENSITIVE]

    def to_dict(self) -> dict[str, Any]:
        """Configuration, tasks, summaries, cells and refused settings as plain values."""
        return {
            "configuration": self.configuration,
            "tasks": {
                task: {
                    "n": self.no_image(task)["n"],
                    "no_image_baseline": self.no_image(task)["name"],
                    "no_image": self.span(task)[0],
                    "full": self.span(task)[1],
                    "without_visual_tokens_from_layer": self.without_visual_tokens(task),
                }
                for task in self.tasks
            },
            "kept_tasks": self.kept_tasks(),
            "insensitive_tasks": {
                name: self.insensitive_tasks(name) for name in self.first_pruning_layers()
            },
            "summary": [asdict(s) for s in self.summaries],
            "cells": [asdict(cell) for cell in self.cells.values()],
            "refused": [
                {"name": name, "keep": keep, "reason": reason}
                for (name, keep), reason in self.refusals().items()
            ],
        }
