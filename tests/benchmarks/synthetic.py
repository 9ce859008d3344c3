"""Synthetic rows of a run with given accuracies."""

from __future__ import annotations

from foveate.benchmarks.results import Results

KEEPS = (0.5, 0.25, 0.125)
CONFIGURATION = {
    "model": "made-up",
    "weights": "0" * 16,
    "parameters": 2_000_000,
    "tokens": 64,
    "layers": 3,
    "world": "w1",
    "size": 64,
    "split": "test",
    "mode": "likelihood",
    "n": 200,
    "batch": 50,
    "dtype": "float32",
    "device": "cpu",
    "versions": {"foveate": "0"},
}


def answers(accuracy: float, n: int = 200, shift: int = 0) -> str:
    """`n` characters, of which the share `accuracy` is 1, evenly spread and rotated by `shift`."""
    marks = [int((i + 1) * accuracy) > int(i * accuracy) for i in range(n)]
    return "".join("01"[marks[(i + shift) % n]] for i in range(n))


def row(task, name, accuracy, keep=None, role="control", seed=None, k=None, **more):
    text = answers(accuracy, shift=7 * (seed or 0))
    share = 1.0 if keep is None else keep
    return {
        "kind": "setting",
        "task": task,
        "name": name,
        "role": role,
        "keep": keep,
        "seed": seed,
        "k": k,
        "n": len(text),
        "accuracy": text.count("1") / len(text),
        "right": text,
        "digests": ["a", "b", "c", "d"],
        "tokens_in": 64.0,
        "tokens_out": 64 * share,
        "tokens_mean": 64 * share,
        "flops": 1e8 * share,
        "flops_full": 1e8,
        "kv_bytes": 1e4 * share,
        "seconds": {
            "encode": 1e-3,
            "select": 1e-4,
            "prefill": 2e-3 * share,
            "wall": 4e-3,
            "own": 0,
        },
        "boundary": None,
        **more,
    }


def results(tasks=("I1", "I2"), curves=None, late=(0.0, 0.2, 0.95), **configuration) -> Results:
    """No-image baseline 0.2, full model 0.9. curves: normalised accuracy by name and ratio."""
    curves = {
        "good": {0.5: 1.0, 0.25: 0.95, 0.125: 0.85},
        "poor": {0.5: 0.4, 0.25: 0.1, 0.125: 0.0},
        "oracle": {0.5: 1.0, 0.25: 1.0, 0.125: 0.95},
        "random": {0.5: 0.8, 0.25: 0.6, 0.125: 0.3},
        "random_original": {0.5: 0.9, 0.25: 0.7, 0.125: 0.5},
        **(curves or {}),
    }
    made = []
    for task in tasks:
        made += [
            row(task, "constant", 0.2, kind="constant"),
            row(task, "blind", 0.15),
            row(task, "full", 0.9, 1.0),
            row(task, "anti_oracle", 0.35, tokens_out=60.0),
        ]
        for name, curve in curves.items():
            role = "control" if name in ("oracle", "random", "random_original") else "method"
            for keep, skill in curve.items():
                seeds = (0, 1, 2) if name == "random" else (0,) if role == "control" else (None,)
                seeds = (None,) if name == "oracle" else seeds
                for seed in seeds:
                    made.append(row(task, name, 0.2 + 0.7 * skill, keep, role, seed))
            made.append(row(task, name, 0.9, 1.0, role, 0 if name.startswith("random") else None))
        made += [
            row(task, "late_blind", 0.2 + 0.7 * skill, role="curve", k=k)
            for k, skill in enumerate(late)
        ]
    return Results({**CONFIGURATION, **configuration}, made)
