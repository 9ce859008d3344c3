"""Models whose linear layers hold int8 weights: methods run on them as on any other."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import pytest
import torch

import foveate
from foveate.errors import UnsupportedCall
from tests.engine.running import close, generate
from tests.families import zoo

METHODS = (
    foveate.DivPrune(keep=0.5),
    foveate.FasterVLM(keep=0.5),
    foveate.VisionZip(keep=0.5),
    foveate.ToMe(keep=0.5),
    foveate.FastV(),
    foveate.PyramidDrop(),
    foveate.SparseVLM(),
    foveate.TCLLaVA(),
    foveate.ZipVL(),
    foveate.DyVTE(weights="random"),
)


@pytest.fixture(scope="module")
def model():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.ao.quantization.quantize_dynamic(
            copy.deepcopy(zoo.model("llava")), {torch.nn.Linear}, dtype=torch.qint8
        )


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.slug)
def test_methods_run_on_int8_weights(model, method):
    inputs = zoo.pair("llava", "image")
    with foveate.attach(model, method) as att:
        generate(model, inputs, 4)
        assert not method.reduces or att.report.kv_bytes < att.report.kv_bytes_full
    bare = generate(model, inputs, 4)
    with foveate.attach(model, replace(method, **type(method).bare)):
        assert close(generate(model, inputs, 4), bare)


def test_what_needs_single_neurons_is_refused(model):
    with foveate.attach(model, foveate.YOPO()), pytest.raises(UnsupportedCall, match="quanti"):
        generate(model, zoo.pair("llava", "image"), 4)
