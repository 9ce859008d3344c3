"""Conformance with official code: each case file has inputs, parameters and official outputs.

    pytest tests/conformance                  # the cases in tests/conformance/cases
    pytest tests/conformance --cases DIR      # another folder with the same structure, DIR/<slug>/*

`mapping/<slug>.py` defines `OPS`, the functions that compute the outputs of a system's cases. A
mapping runs foveate: a part of the method on the state that the engine would pass, or a tiny model
with the method attached. It never implements a step of the method itself. It must read every input,
weight and parameter of a case, or the case fails.

A case also fails if no function computes its op, or if the catalogue does not know its system.
Cases of planned systems are left out and listed at the end.

`cases/` covers all 25 available systems with official code. Seven have no official code:
atp_llava, catp, covipal, explain_compress, fopru, gsearch and lvlm_csp. Downsample, grid pooling,
random and uniform are baselines of foveate. The official code of VideoLLM-MoD does not contain its
layer; its cases come from the system that it extends.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import foveate

HERE = Path(__file__).parent
LATER = pytest.StashKey[Counter[str]]()


@dataclass(frozen=True)
class Case:
    """The content of one file: tensors by name without prefix, or plain values from JSON."""

    path: Path
    method: str
    op: str
    params: dict[str, Any]
    inputs: dict[str, Any]
    weights: dict[str, torch.Tensor]
    outputs: dict[str, Any]
    atol: float


def read_case(path: Path) -> Case:
    """The case in a .safetensors or .json file."""
    if path.suffix == ".json":
        data = json.loads(path.read_text(encoding="utf-8"))
        return Case(
            path,
            data.get("method", path.parent.name),
            data.get("op", path.stem),
            data.get("params", {}),
            {"input": data["input"]},
            {},
            {"output": data["output"]},
            float(data.get("atol", 0)),
        )
    with safe_open(path, "pt") as file:
        meta = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def under(prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    return Case(
        path,
        meta["method"],
        meta["op"],
        json.loads(meta.get("params", "{}")),
        under("in."),
        under("weight."),
        under("out."),
        float(meta["atol"]),
    )


def load_mapping() -> dict[tuple[str, str], Any]:
    """{(method, op): function(inputs, weights, params) -> outputs} of all mapping files."""
    table = {}
    for path in sorted((HERE / "mapping").glob("*.py")):
        spec = spec_from_file_location(f"conformance_mapping_{path.stem}", path)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        table |= {(path.stem, op): function for op, function in module.OPS.items()}
    return table


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cases", metavar="DIR", help="folder of conformance cases, DIR/<slug>/*")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_path" not in metafunc.fixturenames:
        return
    folder = Path(metafunc.config.getoption("--cases", default=None) or HERE / "cases")
    paths = sorted(p for p in folder.glob("*/*") if p.suffix in (".safetensors", ".json"))
    if not paths:
        raise pytest.UsageError(f"No cases in {folder}: use a folder of DIR/<slug>/*.")
    planned = {info.slug for info in foveate.catalog() if info.status == "planned"}
    later = Counter(p.parent.name for p in paths if p.parent.name in planned)
    metafunc.config.stash[LATER] = later
    paths = [p for p in paths if p.parent.name not in later]
    ids = [f"{p.parent.name}/{p.stem}" for p in paths]
    metafunc.parametrize("case_path", paths, ids=ids)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    later = config.stash.get(LATER, {})
    if later:
        names = ", ".join(f"{slug} ({count})" for slug, count in sorted(later.items()))
        terminalreporter.write_line(f"Left out, because these systems are planned: {names}")


@pytest.fixture(scope="session")
def mapping() -> dict[tuple[str, str], Any]:
    return load_mapping()


@pytest.fixture
def case(case_path: Path) -> Case:
    return read_case(case_path)
