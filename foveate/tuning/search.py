"""What proposes settings: sweeps over shares, sigmoids over depth, a rate for every layer."""

from __future__ import annotations

from collections.abc import Sequence

from foveate.method import Composed, Method, create
from foveate.methods.layers.gsearch import GSearch
from foveate.tuning.evaluations import Evaluator, Score
from foveate.tuning.schedules import SLACK, g_search, p_sigmoid

METHODS = ("fastervlm", "visionzip", "divprune", "fastv", "pyramiddrop", "transprune", "gsearch")
KEEPS = (0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.0625)
# Settings in a row that lose too much before smaller ones of the same method are left out.
PATIENCE = 2


class Search:
    """One search; all that it proposes is measured on the fitted part.

    full: the bare model there. max_drop: accuracy that may be lost. limit: share of the bare
    model's FLOPs that may be spent, None for no limit. layers: of the decoder.
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
        # A hair less, so that a loss of exactly what is allowed is allowed.
        self.least = full.accuracy - max_drop - SLACK

    def good(self, score: Score) -> bool:
        """Whether a setting loses no more than it may."""
        return not score.refused and score.accuracy >= self.least

    def run(self, methods: Sequence[str], keeps: Sequence[float], searcher: str) -> None:
        for slug in methods:
            if slug == "gsearch":
                self._sigmoids(keeps)
                self._greedy(searcher)
            else:
                self._sweep(slug, keeps)

    def choice(self) -> Score | None:
        """The cheapest good setting, or with a budget the most accurate one within it."""
        scores = [s for s in self.evaluate.scores.values() if self.good(s) and s.cost < 1 - SLACK]
        if self.limit is not None:
            within = [s for s in scores if s.cost <= self.limit + SLACK]
            return min(within, key=lambda s: (-s.accuracy, s.cost), default=None)
        return min(scores, key=lambda s: (s.cost, -s.accuracy), default=None)

    def _sweep(self, slug: str, keeps: Sequence[float]) -> None:
        failed = 0
        for keep in keeps:
            score = self.evaluate(_made(slug, keep), "sweep")
            failed = 0 if self.good(score) else failed + (not score.refused)
            if failed == PATIENCE:
                return

    def _sigmoids(self, keeps: Sequence[float]) -> None:
        if self.limit is not None:
            self._sigmoid(self._share_of(self.limit), 5, 15, None)
            return
        for keep in keeps:
            if keep * self.layers <= 1 or self._sigmoid(keep, 4, 6, self.least) < self.least:
                return

    def _sigmoid(self, keep: float, start: int, steps: int, enough: float | None) -> float:
        def accuracy(kappa: float) -> float:
            return self.evaluate(GSearch(keep=keep, kappa=kappa), "p-sigmoid").accuracy

        return p_sigmoid(accuracy, start=start, steps=steps, seed=self.seed, enough=enough)[1]

    def _share_of(self, limit: float) -> float:
        """The mean share for which a sigmoid costs `limit`; cost is all but linear in it."""
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


def _made(words: str, keep: float) -> Method:
    """The method, or several joined by "+", each with `keep`."""
    members = tuple(create(slug, keep=keep) for slug in words.split("+"))
    return members[0] if len(members) == 1 else Composed(methods=members)
