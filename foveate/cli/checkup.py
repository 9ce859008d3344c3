"""The checks of `foveate doctor`.

Each package is imported in a subprocess: a broken one must not end the check.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

EXTRAS = {
    "video": ("av",),
    "plot": ("matplotlib",),
    "search": ("optuna", "scipy"),
}
"""Packages of each extra by import name, which is also the distribution name."""

COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
"""Packages that must be built for the installed PyTorch."""

TRANSFORMERS = ((5, 18), (6, 0))
"""Versions of transformers from the first on, below the second. Before 5.18 models have no
argument through which reduced visual tokens enter."""


def checkup() -> dict[str, Any]:
    """Plain values for JSON: system, extras, problems (something fails) and notes."""
    problems: list[str] = []
    notes: list[str] = []
    system = {"python": platform.python_version(), "machine": platform.machine()}
    system |= _torch(problems)
    system |= _transformers(problems)
    system |= _embedded(notes)
    names = [n for packages in EXTRAS.values() for n in packages]
    names = [name for name in (*names, *COMPANIONS) if find_spec(name) is not None]
    with ThreadPoolExecutor(4) as pool:
        states = dict(zip(names, pool.map(_imports, names), strict=True))
    _companions(states, problems, notes)
    extras = []
    for extra, packages in EXTRAS.items():
        found = {name: _version(name) for name in packages if name in states}
        broken = [name for name in found if states[name]]
        notes.extend(f"{name} is installed but fails: {states[name]}" for name in broken)
        state = f"broken: {', '.join(broken)}" if broken else "works"
        if len(found) < len(packages):
            missing = ", ".join(name for name in packages if name not in found)
            state = f"{missing} missing: pip install 'foveate[{extra}]'"
        extras.append({"name": extra, "packages": found, "state": state})
    return {"system": system, "extras": extras, "problems": problems, "notes": notes}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _imports(name: str) -> str:
    """Empty if `name` can be imported, else the last line of its error."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"], capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        return "the import takes longer than two minutes"
    said = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else (said[-1] if said else f"exit code {done.returncode}")


def _torch(problems: list[str]) -> dict[str, str]:
    try:
        import torch
    except Exception as error:
        problems.append(f"PyTorch does not import: {error}")
        return {"torch": "broken"}
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    if torch.version.hip:
        build = f"ROCm {torch.version.hip}"
    device = "cpu"
    if torch.cuda.is_available():
        device = f"cuda ({torch.cuda.get_device_name()})"
    elif torch.version.cuda:
        device = "cpu (this CUDA build sees no device)"
    return {
        "torch": f"{torch.__version__} ({build})",
        "device": device,
        "threads": str(torch.get_num_threads()),
    }


def _transformers(problems: list[str]) -> dict[str, str]:
    found = _version("transformers")
    low, high = TRANSFORMERS
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdecimal())
    needed = f"foveate needs {low[0]}.{low[1]} or newer, below {high[0]}"
    if not low <= numbers < high:
        problems.append(
            f"transformers {found or 'is missing'}: {needed}; "
            f"pip install 'transformers>={low[0]}.{low[1]},<{high[0]}'."
        )
    return {"transformers": f"{found or 'missing'} ({needed})"}


def _embedded(notes: list[str]) -> dict[str, str]:
    from foveate import mini

    names = mini.available()
    if not names:
        notes.append("No embedded model is installed; 'foveate train nano' trains one.")
    return {"embedded models": ", ".join(names) or "none"}


def _companions(states: dict[str, str], problems: list[str], notes: list[str]) -> None:
    """Companions that do not fit PyTorch: worse than none, for transformers dies with them."""
    for name in COMPANIONS:
        if states.get(name):
            problems.append(
                f"{name} {_version(name)} does not fit this PyTorch ({states[name]}), and "
                "transformers then fails with misleading errors: uninstall it, or install the one "
                "from PyTorch's own index that matches."
            )
    if "torchvision" not in states:
        notes.append(
            "Without torchvision the processors of video models (Qwen2-VL and others) read "
            "pictures but no videos, and must be loaded with foveate.load_processor; take "
            "torchvision from PyTorch's own index, for pip may replace PyTorch to suit it."
        )
