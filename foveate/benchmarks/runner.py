"""`run`: measure methods on a model; each finished setting is saved."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

import foveate
from foveate.benchmarks.errors import BenchError
from foveate.benchmarks.evaluation import MODES, EvalResult, evaluate_method
from foveate.benchmarks.evidence import EvidenceBoxes, evidence_cells
from foveate.benchmarks.loaded_model import LoadedModel, inspect_model
from foveate.benchmarks.results import Results
from foveate.benchmarks.run_folder import RunFolder
from foveate.benchmarks.settings import (
    IDENTITY_ITEMS,
    TITLES,
    Setting,
    plan,
    retention_ratios,
    select_methods,
)
from foveate.benchmarks.task_items import BATCH, Batch, TaskItems
from foveate.errors import FoveateError, UnknownName
from foveate.families.base import raster
from foveate.flops import DecoderShape, VisionShape, prefill_flops, vision_flops
from foveate.method import Composed, Method
from foveate.mini.progress import bar
from foveate.mini.world import SPLITS, WORLD_VERSION
from foveate.mini.world.keys import SPLIT_SIZES
from foveate.parts import LayersPart

# Over all tasks. A default run takes less than six minutes on two CPU cores.
FLOPS_PER_SETTING = 300e9
FEWEST, MOST = 25, 1000


def run(
    model: Any,
    processor: Any,
    *,
    out: str | Path,
    methods: Sequence[str | Method] | str | None = None,
    keep: Sequence[float | int] | None = None,
    tasks: Sequence[str] | None = None,
    n: int | None = None,
    split: str = "test",
    mode: str = "likelihood",
    full: bool = False,
    name: str | None = None,
    progress: bool = False,
) -> Results:
    """Measure methods, baselines and controls on `model`.

    Settings that are already stored in `out` are not measured again.

    Args:
        model: an embedded model, or one that was trained on the synthetic tasks.
        processor: its processor.
        out: folder of the results.
        methods: slugs, compositions such as "fastervlm+pyramiddrop", methods with parameters, or
            "all". Default None: one method of each kind.
        keep: retention ratios in (0, 1] or numbers of visual tokens. Default None: 1 to 0.03125.
        tasks: ids of tasks. Default None: all that the model has learned.
        n: items per task. Default None: from the size of the model, for a run of a few minutes.
        split: "val", "test" or "test-ood". Default "test".
        mode: "likelihood" of the candidate answers, or "generate". Default "likelihood".
        full: all methods on 1,000 items per task. Default False.
        name: name of the model in the results. Default None: from its card or folder.
        progress: show a progress bar. Default False.

    Returns:
        All results of the folder.
    """
    if mode not in MODES:
        raise UnknownName.of("mode", mode, MODES)
    if split not in SPLITS or split == "train":
        raise UnknownName.of("test split", split, [s for s in SPLITS if s != "train"])
    loaded = inspect_model(model, processor, name)
    picked = _tasks(tasks, loaded)
    named = select_methods(methods, full)
    keeps = retention_ratios(keep, loaded.tokens)
    n = _count(n, split, full, loaded, len(picked))
    folder = RunFolder.open(out, _configuration(loaded, split, mode, n))
    done = folder.keys()
    evidence = EvidenceBoxes()
    plans = {
        task: plan(named, keeps, loaded.layers, task, evidence, None if full else IDENTITY_ITEMS)
        for task in picked
    }
    total = sum(map(len, plans.values()))
    with _evaluating(model), bar("measuring", total, show=progress) as tick:
        finished = 0
        for task, settings in plans.items():
            open_ = [s for s in settings if (task, *s.key) not in done]
            finished += len(settings) - len(open_)
            tick(finished, task)
            if not open_:
                continue
            items = TaskItems(loaded, task, n, split)
            if not any(row["task"] == task for row in folder.rows):
                folder.add(_constant(items))
            # Warm-up: the first call of a process is slower than later ones.
            first = evaluate_method(loaded, items.batches[:1], Composed())
            if first.tokens_in != loaded.tokens:
                raise BenchError(
                    f"{loaded.name} makes {first.tokens_in:g} tokens of an image of "
                    f"{loaded.size} px, not one per patch ({loaded.tokens}): the benchmark needs "
                    "one token per patch, use a model such as foveate.mini('nano')."
                )
            for setting in open_:
                folder.add(_measured(loaded, items, setting, evidence, folder, mode))
                finished += 1
                tick(finished, f"{task} {TITLES.get(setting.name, setting.name)}")
    return Results(folder.configuration, folder.rows)


def default_items(loaded: LoadedModel, tasks: int) -> int:
    """Default number of items per task, from the FLOPs of the model: equal on every machine."""
    shape = DecoderShape.from_config(loaded.model.config)
    cost = prefill_flops(shape, loaded.tokens + 12)
    tower = VisionShape.from_config(loaded.model.config)
    if tower is not None:
        cost += vision_flops(tower, loaded.tokens + 1)
    return max(FEWEST, min(MOST, round(FLOPS_PER_SETTING / tasks / cost / 25) * 25))


def _measured(
    loaded: LoadedModel,
    items: TaskItems,
    setting: Setting,
    evidence: EvidenceBoxes,
    folder: RunFolder,
    mode: str,
) -> dict[str, Any]:
    """The row of one setting; if the method refuses it, a row with the reason."""
    row = {"kind": "setting", "task": items.task, **_labels(setting), "n": 0}
    row["run"] = {k: v for k, v in folder.configuration.items() if k != "n"}
    by_evidence = setting.images == "by evidence"
    try:
        method = setting.make()
        outcome = evaluate_method(
            loaded,
            _batches(loaded, items, setting, evidence),
            method,
            mode,
            None if by_evidence else lambda batch: evidence.set_items(batch.items),
        )
    except FoveateError as error:
        return {**row, "refused": " ".join(str(error).split())}
    row["method"] = _described(method)
    row["stages"] = list(method.stages)
    inside = [part for part in method.parts() if isinstance(part, LayersPart)]
    bounds = [k for part in inside for k in part.boundaries(loaded.layers)]
    row["boundary"] = min(bounds, default=None)
    return {**row, **_figures(outcome)}


def _labels(setting: Setting) -> dict[str, Any]:
    return {name: getattr(setting, name) for name in ("name", "role", "keep", "seed", "k")}


def _described(method: Method) -> dict[str, Any]:
    """Slug and parameters, without the evidence boxes of a control."""
    return {k: v for k, v in method.to_dict().items() if k != "evidence"}


def _figures(outcome: EvalResult) -> dict[str, Any]:
    """A measurement as JSON types; `right` has one character per item, 1 or 0."""
    plain = {k: v for k, v in vars(outcome).items() if k not in ("right", "seconds")}
    return {
        **plain,
        "n": len(outcome.right),
        "accuracy": float(outcome.right.mean()),
        "right": "".join(map(str, outcome.right.tolist())),
        "seconds": {stage: round(value, 9) for stage, value in outcome.seconds.items()},
    }


def _batches(
    loaded: LoadedModel, items: TaskItems, setting: Setting, evidence: EvidenceBoxes
) -> Iterator[Batch] | list[Batch]:
    if setting.images == "constant colour":
        return items.constant_colour
    if setting.images == "by evidence":
        return _by_evidence(loaded, items, evidence)
    if setting.items is not None:
        return items.batches[: max(1, setting.items // BATCH)]
    return items.batches


def _by_evidence(loaded: LoadedModel, items: TaskItems, evidence: EvidenceBoxes) -> Iterator[Batch]:
    """Batches of items with the same number of evidence tokens; sets `evidence` for each."""
    side = loaded.size // loaded.patch
    layout = raster(1, side, side)
    counts = [
        min(evidence_cells(item, layout.grid, layout.position), layout.n - 1)
        for item in items.items
    ]
    for dropped, batch in items.grouped(counts):
        evidence.dropped = dropped
        evidence.set_items(batch.items)
        yield batch


def _constant(items: TaskItems) -> dict[str, Any]:
    """The row of the best constant answer; it needs no model."""
    right = items.constant_answer()
    return {
        "kind": "constant",
        "task": items.task,
        "name": "constant",
        "role": "control",
        "keep": None,
        "seed": None,
        "k": None,
        "n": len(right),
        "accuracy": float(right.mean()),
        "right": "".join(map(str, right.tolist())),
    }


def _tasks(tasks: Sequence[str] | None, loaded: LoadedModel) -> list[str]:
    if tasks is None:
        return list(loaded.tasks)
    for task in tasks:
        if task not in loaded.tasks:
            raise UnknownName.of(f"task of {loaded.name}", task, loaded.tasks)
    return list(dict.fromkeys(tasks))


def _count(n: int | None, split: str, full: bool, loaded: LoadedModel, tasks: int) -> int:
    limit = SPLIT_SIZES[split]
    if n is None:
        return limit if full else min(limit, default_items(loaded, tasks))
    if not 1 <= n <= limit:
        raise BenchError(f"n={n} is out of range: use 1 <= n <= {limit} for split {split!r}.")
    return n


def _configuration(loaded: LoadedModel, split: str, mode: str, n: int) -> dict[str, Any]:
    """The configuration that all rows of a folder share, so that they can be compared."""
    parameter = next(loaded.model.parameters())
    return {
        "model": loaded.name,
        "weights": loaded.weights,
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "tokens": loaded.tokens,
        "layers": loaded.layers,
        "world": WORLD_VERSION,
        "size": loaded.size,
        "split": split,
        "mode": mode,
        "n": n,
        "batch": BATCH,
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "device": parameter.device.type,
        "versions": _versions(loaded.model),
    }


def _versions(model: Any) -> dict[str, Any]:
    """The environment; results of two environments are not mixed in one folder."""
    return {
        "foveate": foveate.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "attention": getattr(model.config, "_attn_implementation", None),
    }


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
