"""What pages say of each selection: what `keep` counts, and what the prompt changes."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import foveate
from foveate.budget import BEFORE_LLM, FROM_LAYER, MEAN_OVER_LAYERS
from foveate.catalogue import describe
from foveate.errors import BudgetError, MissingWeights
from foveate.method import method_class

AVAILABLE = [info.slug for info in foveate.catalog() if info.status == "available"]
REDUCING = [slug for slug in AVAILABLE if method_class(slug).reduces]
PHRASES = (BEFORE_LLM, FROM_LAYER, MEAN_OVER_LAYERS)


@cache
def embedded(name: str):
    return foveate.mini(name)


def call(slug: str, text: str = "<image> what colour is the circle?", **parameters):
    """Report of a method on the first embedded model that it runs with, and the model's layers."""
    item = foveate.mini.world.items("I1", "test", 1)[0]
    for name in ("nano", "image"):
        model, processor = embedded(name)
        inputs = processor(images=item.image(), text=text, return_tensors="pt")
        try:
            with foveate.attach(model, foveate.create(slug, **parameters)) as att, torch.no_grad():
                model(**inputs)
        except (BudgetError, MissingWeights):
            continue
        return att.report
    raise AssertionError(f"{slug} runs on no embedded model")


@pytest.mark.parametrize("slug", AVAILABLE)
def test_the_documentation_of_keep_begins_with_what_it_counts(slug):
    told = describe(slug)
    (doc,) = (row["doc"] for row in told["parameters"] if row["name"] == "keep")
    if method_class(slug).reduces:
        assert doc.startswith(told["keep_means"]), doc
        assert told["keep_means"] in PHRASES or slug == "zipvl"
    else:
        assert told["keep_means"].startswith("always 1.0") and doc.startswith("always 1.0")


APPROXIMATE = {"atp_llava": 0.25, "dyvte": 0.5, "downsample": 0.15}
"""Methods whose keep is a target or an upper limit, and how far from it they may end."""


@pytest.mark.parametrize("slug", [s for s in REDUCING if method_class(s).keep_means in PHRASES])
def test_keep_counts_what_the_pages_say(slug):
    keep = 0.6 if slug == "videollm_mod" else 0.5
    report = call(slug, keep=keep)
    layers = [sum(row) / sum(report.tokens_in) for row in zip(*report.tokens_by_layer, strict=True)]
    counted = {
        BEFORE_LLM: layers[0],
        FROM_LAYER: layers[-1],
        MEAN_OVER_LAYERS: sum(layers) / len(layers),
    }
    means = method_class(slug).keep_means
    assert counted[means] == pytest.approx(keep, abs=APPROXIMATE.get(slug, 0.04)), layers
    if means == BEFORE_LLM:
        assert len(set(layers)) == 1


def kept(slug: str, text: str) -> list[torch.Tensor]:
    parameters = {"keep": 0.25} if slug == "visiondrop" else {}
    (trace,) = call(slug, text, **parameters).traces
    return [trace.assign, *(span.assign for span in trace.by_layer)]


def alike(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return len(one) == len(two) and all(map(torch.equal, one, two))


@pytest.mark.parametrize("slug", REDUCING)
def test_prompt_agnostic_methods_keep_the_same_tokens_for_every_prompt(slug):
    cls = method_class(slug)
    after = [kept(slug, f"<image> {q}") for q in ("what colour is the circle?", "how many?")]
    before = [
        kept(slug, f"{q} <image> answer") for q in ("what colour is the circle?", "how many?")
    ]
    if cls.prompt_agnostic or cls.text_before_image_only:
        assert alike(*after)
    if cls.prompt_agnostic:
        assert alike(*before)
    if cls.text_before_image_only:
        assert not alike(*before)
