"""Cases of the official code: inputs, parameters and outputs, one file each.

    pytest tests/conformance                  # the cases beside this file
    pytest tests/conformance --cases DIR      # another folder of the same structure, DIR/<slug>/*

`mapping/<slug>.py` holds `OPS`, the functions that answer the cases of one system. A mapping runs
the product (a method's own part on the state that the engine would hand it, or a tiny model with
the method attached) and never does a step of the method by itself. It reads every input, weight
and parameter of a case, or the case fails.

A case of an available method fails where no function answers its op, and so does a case of a
system that the catalogue doesn't know. Those of systems that the catalogue plans are left out, and
named at the end.

Official code was published for 25 of the systems that have a method, all in `cases/`. Seven have
no case, as there is no official code to run: atp_llava, catp, covipal, explain_compress, fopru,
gsearch and lvlm_csp. Downsample, grid pooling, random and uniform are controls of our own.
VideoLLM-MoD's authors published none of its layer either: its cases are of the system that it is
built on.
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
        terminalreporter.write_line(f"Left out, as these systems have no method yet: {names}")


@pytest.fixture(scope="session")
def mapping() -> dict[tuple[str, str], Any]:
    return load_mapping()


@pytest.fixture
def case(case_path: Path) -> Case:
    return read_case(case_path)
