"""An attached model logs nothing and warns of nothing that the bare model would not."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from transformers.utils.logging import warning_once

import foveate
from tests.families import zoo
from tests.families.halves import Half, HalfAt

CALLS = {
    "generate": lambda model, inputs: model.generate(**inputs, max_new_tokens=3),
    "generate without cache": lambda model, inputs: model.generate(
        **inputs, max_new_tokens=3, use_cache=False
    ),
    "forward": lambda model, inputs: model(**inputs),
    "forward without cache": lambda model, inputs: model(**inputs, use_cache=False),
}


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("call", CALLS)
def test_no_deprecation_is_caused(name, call):
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    model, inputs = zoo.model(name), zoo.batch(name, [zoo.sample(name, "image", 0)])
    # It logs each message once per process.
    warning_once.cache_clear()
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as warned, torch.no_grad():
            warnings.simplefilter("always")
            for method in (Half(), HalfAt(), foveate.ZipVL()):
                with foveate.attach(model, method) as attached:
                    CALLS[call](model, inputs)
                    str(attached.report)
    finally:
        logger.removeHandler(handler)
    assert said == [] and [str(w.message) for w in warned] == []
