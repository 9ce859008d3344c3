"""Cases of the official code: inputs, parameters and outputs, one file each.

    pytest tests/conformance                  # the cases beside this file
    pytest tests/conformance --cases DIR      # another folder of the same structure, DIR/<slug>/*

`mapping/<slug>.py` holds `OPS`, the functions that answer the cases of one system.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """One file. Tensors by name without their prefix; plain values where the file is JSON."""

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
        raise pytest.UsageError(f"There are no cases under {folder}; give a folder DIR/<slug>/*.")
    ids = [f"{p.parent.name}/{p.stem}" for p in paths]
    metafunc.parametrize("case_path", paths, ids=ids)


@pytest.fixture(scope="session")
def mapping() -> dict[tuple[str, str], Any]:
    return load_mapping()


@pytest.fixture
def case(case_path: Path) -> Case:
    return read_case(case_path)
