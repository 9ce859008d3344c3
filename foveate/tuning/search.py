"""The settings that a search tries: retention-ratio sweeps, P-Sigmoid and G-Search."""

from __future__ import annotations

from collections.abc import Sequence

from foveate.benchmarks.settings import compose, with_keep
from foveate.methods.layers.gsearch import GSearch
from foveate.tuning.evaluations import Evaluator, Score
from foveate.tuning.schedules import SLACK, g_search, p_sigmoid

METHODS = ("fastervlm", "visionzip", "divprune", "fastv", "pyramiddrop", "transprune", "gsearch")
KEEPS = (0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.0625)
# A sweep stops after so many settings in a row with too large an accuracy drop.
PATIENCE = 2


class Search:
    """One search; every setting is measured on the search split.

    Args:
        evaluate: measures a method.
        full: score of the full model.
        max_drop: largest accuracy drop, in [0, 1).
        limit: largest share of the prefill FLOPs of the full model; None for no limit.
        layers: number of decoder layers.
        seed: seed of Bayesian optimisation.
    """

    def __init__(
        self,
        evaluate: Evaluator,
        full: Score,
        max_drop: float,
        limit: float | None,
        layers: int,
        seed: int,
    ):
        self.evaluate, self.full, self.layers, self.seed = evaluate, full, layers, seed
        self.max_drop, self.limit = max_drop, limit
        # SLACK: a drop of exactly max_drop is accepted despite rounding.
        self.least = full.accuracy - max_drop - SLACK

    def good(self, score: Score) -> bool:
        """Whether a setting runs and its accuracy drop is at most `max_drop`."""
        return not score.refused and score.accuracy >= self.least

    def run(self, methods: Sequence[str], keeps: Sequence[float], searcher: str) -> None:
        """Measure the settings of all methods; `keeps` are ratios, largest first."""
        for slug in methods:
            if slug == "gsearch":
                self._sigmoids(keeps)
                self._greedy(searcher)
            else:
                self._sweep(slug, keeps)

    def best_setting(self) -> Score | None:
        """The cheapest good setting, or the most accurate good one within `limit`."""
        scores = [s for s in self.evaluate.scores.values() if self.good(s) and s.cost < 1 - SLACK]
        if self.limit is not None:
            within = [s for s in scores if s.cost <= self.limit + SLACK]
            return min(within, key=lambda s: (-s.accuracy, s.cost), default=None)
        return min(scores, key=lambda s: (s.cost, -s.accuracy), default=None)

    def _sweep(self, slug: str, keeps: Sequence[float]) -> None:
        failed = 0
        for keep in keeps:
            score = self.evaluate(with_keep(compose(slug), keep), "sweep")
            failed = 0 if self.good(score) else failed + (not score.refused)
            if failed == PATIENCE:
                return

    def _sigmoids(self, keeps: Sequence[float]) -> None:
        if self.limit is not None:
            self._sigmoid(self._ratio_for(self.limit), 5, 15, None)
            return
        for keep in keeps:
            if keep * self.layers <= 1 or self._sigmoid(keep, 4, 6, self.least) < self.least:
                return

    def _sigmoid(self, keep: float, start: int, steps: int, enough: float | None) -> float:
        def accuracy(kappa: float) -> float:
            return self.evaluate(GSearch(keep=keep, kappa=kappa), "p-sigmoid").accuracy

        return p_sigmoid(accuracy, start=start, steps=steps, seed=self.seed, enough=enough)[1]

    def _ratio_for(self, limit: float) -> float:
        """The mean ratio at which a sigmoid costs `limit`; the cost is almost linear in it."""
        least = 1 / self.layers + 1e-3
        share = (1 + least) / 2
        for _ in range(3):
            cost = self.evaluate(GSearch(keep=share), "p-sigmoid").cost
            if cost < 1:
                share = 1 - (1 - share) * (1 - limit) / (1 - cost)
            share = min(max(share, least), 0.999)
        return share

    def _greedy(self, searcher: str) -> None:
        def accuracy(rates: tuple[float, ...]) -> float:
            return self.evaluate(GSearch(schedule=rates), "g-search").accuracy

        g_search(
            accuracy, self.layers, self.least, searcher=searcher, tolerance=self.max_drop,
            seed=self.seed,
        )  # fmt: skip
