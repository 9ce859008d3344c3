"""foveate computes the outputs of the official code."""

from __future__ import annotations

import pytest

from tests.conformance.comparing import check_equal
from tests.conformance.reading import Read


def test_case(case, mapping):
    key = case.method, case.op
    if key not in mapping:
        pytest.fail(f"No function computes {key}: add it to mapping/{case.method}.py.")
    given = {name: Read(getattr(case, name)) for name in ("inputs", "weights", "params")}
    found = mapping[key](*given.values())
    for name, read in given.items():
        assert not read.ignored, f"{key} ignores the {name} {read.ignored}: map them."
    missing = {k for k, v in case.outputs.items() if v is not None} - found.keys()
    assert not missing, f"{key} did not return {sorted(missing)}"
    for name, expected in case.outputs.items():
        check_equal(found.get(name), expected, case.atol, name)
