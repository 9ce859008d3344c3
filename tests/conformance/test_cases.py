"""Our functions give what the official code gave."""

from __future__ import annotations

import pytest
import torch


def test_case(case, mapping):
    key = case.method, case.op
    if key not in mapping:
        pytest.fail(f"No function answers {key}: add it to mapping/{case.method}.py.")
    found = mapping[key](case.inputs, case.weights, case.params)
    missing = case.outputs.keys() - found.keys()
    assert not missing, f"{key} gave no {sorted(missing)}"
    for name, expected in case.outputs.items():
        if not isinstance(expected, torch.Tensor):
            assert found[name] == expected, name
        elif expected.is_floating_point():
            assert found[name].shape == expected.shape, name
            torch.testing.assert_close(
                found[name].to(expected.dtype), expected, atol=case.atol, rtol=0, msg=name
            )
        else:
            assert torch.equal(found[name].to(expected.dtype), expected), name
