"""`tune`: the cheapest method and budget within a given accuracy drop on your data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

import foveate
from foveate.benchmarks.loaded_model import weights_digest
from foveate.benchmarks.statistics import wilson
from foveate.engine.anatomy import anatomy
from foveate.errors import InvalidParameter, UnknownName, shown
from foveate.method import Composed, method_class
from foveate.parameters import as_declared
from foveate.tuning.batches import batches_of
from foveate.tuning.errors import TuneError
from foveate.tuning.evaluations import PARTS, Evaluations, Evaluator, Score
from foveate.tuning.pareto import accuracy_drop, pareto_front
from foveate.tuning.plan import Plan
from foveate.tuning.samples import Sample, read_samples, split
from foveate.tuning.schedules import SEARCHERS
from foveate.tuning.search import KEEPS, METHODS, Search

ENDS = 1 << 20
"""Bytes at the start and the end of a file that identify it."""


def tune(
    model: Any,
    processor: Any,
    data: str | Path | Sequence[Sample],
    *,
    methods: Sequence[str] | None = None,
    keep: Sequence[float] | None = None,
    max_drop: float = 0.01,
    budget_flops: float | None = None,
    searcher: str = "bisect",
    held_out: float = 0.5,
    batch: int = 32,
    frames: int = 8,
    seed: int = 0,
    folder: str | Path | None = None,
    name: str | None = None,
    watch: Callable[[Score], None] = lambda score: None,
) -> Plan:
    """Find the cheapest setting with an accuracy drop of at most `max_drop` on `data`.

    Settings are compared on the search split; the result is reported on the held-out split.

    Args:
        model: the model.
        processor: its processor.
        data: samples, or the path of a JSONL file of samples.
        methods: slugs, or compositions such as "divprune+fastv"; "gsearch" searches a retention
            ratio for every layer. Default None: seven methods.
        keep: retention ratios to try, in (0, 1). Default None: seven ratios from 0.7 to 0.0625.
        max_drop: largest accuracy drop on the search split, accuracy of the full model minus
            accuracy of the setting, in [0, 1). Default 0.01, one percentage point.
        budget_flops: prefill FLOPs: up to 1 a share of the full model's, above 1 FLOPs per sample.
            The most accurate setting within this budget is chosen. Default None: the cheapest
            setting is chosen.
        searcher: "bisect" or "bo" (Bayesian optimisation, needs optuna), for "gsearch". Default
            "bisect".
        held_out: share of the held-out split, in (0, 1). Default 0.5.
        batch: batch size. Default 32.
        frames: frames per video. Models without video input get them as images. Default 8.
        seed: seed of the split and of the search. Default 0.
        folder: folder in which every measurement is saved; an interrupted search continues from
            it. Default None: measurements stay in memory.
        name: name of the model in the plan. Default None: its path or class name.
        watch: called with every measurement on the search split.

    Returns:
        The plan. Its `setting` is None if no cheaper setting is accurate enough.
    """
    methods = as_declared("methods", methods, Sequence[str] | None)
    keep = as_declared("keep", keep, Sequence[float] | None)
    max_drop = as_declared("max_drop", max_drop, float)
    budget_flops = as_declared("budget_flops", budget_flops, float | None)
    searcher = as_declared("searcher", searcher, str)
    held_out = as_declared("held_out", held_out, float)
    batch, frames = as_declared("batch", batch, int), as_declared("frames", frames, int)
    seed = as_declared("seed", seed, int)
    anatomy(model)
    if not isinstance(data, str | Path | Sequence):
        raise InvalidParameter(
            f"data={shown(data)} is not valid: use a list of samples or the path of a JSONL file."
        )
    named = check(methods, keep, max_drop, budget_flops, searcher, held_out, batch, frames)
    samples = read_samples(data) if isinstance(data, str | Path) else list(data)
    parts = dict(zip(PARTS, split(samples, held_out, seed), strict=True))
    name = name or str(getattr(model, "name_or_path", "") or type(model).__name__)
    configuration = _configuration(model, name, samples, held_out, seed, batch)
    if any(sample.video for sample in samples):
        configuration["frames"] = frames
    stored = Evaluations.start(None if folder is None else Path(folder), configuration)
    with _evaluating(model):
        batches = {
            part: batches_of(model, processor, own, batch, frames) for part, own in parts.items()
        }
        evaluate = Evaluator(model, processor, batches, stored, watch)
        full = evaluate(Composed(), "bare model")
        limit = budget_flops
        if limit is not None and limit > 1:
            limit = limit / full.flops
        search = Search(evaluate, full, max_drop, limit, len(anatomy(model).layers), seed)
        search.run(named, sorted(keep or KEEPS, reverse=True), searcher)
        chosen = search.best_setting()
        return _plan(evaluate, search, chosen, name, {"max_drop": max_drop, "budget": limit})


def _plan(
    evaluate: Evaluator, search: Search, chosen: Score | None, name: str, asked: dict[str, Any]
) -> Plan:
    scores = list(evaluate.scores.values())
    shown = pareto_front(scores)
    if chosen is not None and all(s.method != chosen.method for s in shown):
        shown.append(chosen)
    whole = evaluate(Composed(), "bare model", "held_out")
    rows = []
    for score in shown:
        method = foveate.from_dict(score.method)
        out = evaluate(method, score.source, "held_out")
        row = {
            "method": score.method,
            "words": repr(method) or "full model",
            "source": score.source,
            "fit": _figures(search.full, score),
            "held_out": _figures(whole, out),
        }
        rows.append(row)
    mine = next((r for r in rows if chosen is not None and r["method"] == chosen.method), None)
    return Plan(
        setting=None if chosen is None else chosen.method,
        model=name,
        layers=search.layers,
        held_out=mine["held_out"] if mine else {},
        front=rows,
        evaluations=len(scores),
        asked=asked,
    )


def _figures(full: Score, score: Score) -> dict[str, Any]:
    """Metrics of a setting on one split; intervals are 95 % intervals."""
    n = len(score.right)
    lost, between = accuracy_drop(full.right, score.right)
    return {
        "n": n,
        "accuracy": score.accuracy,
        "accuracy_interval": list(wilson(int(score.right.sum()), n)),
        "drop": lost,
        "drop_interval": list(between),
        "cost": score.cost,
        "flops": score.flops,
        "tokens": score.tokens,
    }


def check(
    methods: Sequence[str] | None,
    keep: Sequence[float] | None,
    max_drop: float,
    budget_flops: float | None,
    searcher: str,
    held_out: float,
    batch: int,
    frames: int,
) -> list[str]:
    """The methods to search; raises an error for wrong values before anything is loaded."""
    if isinstance(max_drop, bool) or not 0 <= max_drop < 1:
        raise InvalidParameter(
            f"max_drop={max_drop} is not a valid accuracy drop: use 0 <= max_drop < 1, such as "
            "0.01 for one point."
        )
    if budget_flops is not None and not budget_flops > 0:
        raise InvalidParameter(
            f"budget_flops={budget_flops} is not a valid budget: use a share of the full model's "
            "FLOPs such as 0.4, or FLOPs per sample such as 2e12."
        )
    if searcher not in SEARCHERS:
        raise UnknownName.of("searcher", searcher, SEARCHERS)
    if not 0 < held_out < 1:
        raise InvalidParameter(
            f"held_out={held_out} is not a valid share: use 0 < held_out < 1, such as 0.5."
        )
    if batch < 1 or frames < 1:
        raise InvalidParameter(f"batch={batch}, frames={frames}: use at least 1 for each.")
    for share in keep or ():
        if not isinstance(share, float) or not 0 < share < 1:
            raise InvalidParameter(f"keep={share!r} is not a ratio to try: use 0 < keep < 1.")
    named = list(dict.fromkeys(METHODS if methods is None else methods))
    if not named:
        raise TuneError("methods is empty: name at least one, such as gsearch.")
    for words in named:
        for slug in words.split("+"):
            method_class(slug)
    return named


def _configuration(model, name, samples, held_out, seed, batch) -> dict[str, Any]:
    """The configuration that all measurements of a folder share."""
    parameter = next(model.parameters())
    return {
        "model": name,
        "weights": weights_digest(model),
        "samples": _samples_digest(samples),
        "n": len(samples),
        "held_out": held_out,
        "seed": seed,
        "batch": batch,
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "device": parameter.device.type,
        "versions": {
            "foveate": foveate.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _samples_digest(samples: Sequence[Sample]) -> str:
    """A short hash of questions, answers and images: measurements of two sets never mix."""
    digest = hashlib.blake2b(digest_size=8)
    for sample in samples:
        digest.update(repr((sample.question, sample.answer, sample.candidates)).encode())
        for file in sample.files:
            known = isinstance(file, str | Path)
            digest.update(_ends(Path(file)) if known else file.tobytes())
    return digest.hexdigest()


def _ends(path: Path) -> bytes:
    """Size, first and last bytes of a file: enough to tell long videos apart, and fast."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        begins = file.read(ENDS)
        file.seek(max(len(begins), size - ENDS))
        return repr(size).encode() + begins + file.read()


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
