"""A decode step costs what it costs the bare model, and obeys the mask of what came behind."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

import foveate
from perf.dispatch import Operators
from tests.engine.running import pair
from tests.families import zoo
from tests.families.halves import Half, HalfAt, HalfHeld

WAITS = ("is_nonzero", "_local_scalar_dense", "item", "nonzero", "equal", "unique")


def step(model, method, masked: bool) -> Counter:
    """Operators of a decode step, the second one."""
    (one, _), _ = pair("llava")
    new, mask = one["input_ids"][:, :1], one["attention_mask"]
    with torch.inference_mode():
        attachment = None if method is None else foveate.attach(model, method)
        cache = model(**one, use_cache=True).past_key_values
        for _ in range(2):
            mask = torch.cat([mask, torch.ones_like(new)], 1)
            with Operators() as seen:
                model(
                    input_ids=new,
                    past_key_values=cache,
                    **({"attention_mask": mask} if masked else {}),
                )
        if attachment is not None:
            attachment.detach()
    return seen.count


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    "method,added",
    [
        (foveate.DivPrune(keep=1.0), 0),
        (foveate.FastV(keep=1.0), 0),
        (foveate.DivPrune(keep=0.5), 0),
        (foveate.DivPrune(keep=0.5, positions="original"), 0),
        (foveate.VisionZip(keep=0.5), 0),
        (foveate.FastV(), 0),
        (foveate.PyramidDrop(), 3),
        (HalfAt(k=1, positions="packed") + HalfAt(k=2, positions="packed"), 3),
    ],
    ids=repr,
)
def test_a_decode_step_launches_no_more_than_the_bare_model(method, added, masked):
    model = zoo.model("llava")
    bare, found = step(model, None, masked), step(model, method, masked)
    assert found.total() - bare.total() <= added
    assert all(found[wait] <= bare[wait] for wait in WAITS)


METHODS = [
    Half(),
    Half(positions="packed"),
    HalfAt(),
    HalfAt(positions="packed"),
    Half(positions="packed") + HalfAt(k=1, positions="packed") + HalfAt(k=3, positions="packed"),
    HalfHeld(),
    foveate.TCLLaVA(),
    foveate.DyMU(keep=8),
]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_what_a_row_missed_is_no_part_of_it(method, attention):
    """One row pauses for two steps, masked, while the other goes on; then it goes on, too."""
    model = zoo.model("llava", attention)
    alone, batch = pair("llava")
    first, last = torch.tensor([[7]]), torch.tensor([[8]])
    with foveate.attach(model, method), torch.no_grad():
        cache = model(**_counted(batch), use_cache=True).past_key_values
        mask, at = batch["attention_mask"], batch["attention_mask"].sum(1, keepdim=True)
        for there in ([1, 1], [0, 1], [0, 1], [1, 1]):
            there = torch.tensor(there)[:, None]
            mask = torch.cat([mask, there], 1)
            new = first if mask.shape[1] == batch["attention_mask"].shape[1] + 1 else last
            got = model(
                input_ids=new.expand(2, -1),
                attention_mask=mask,
                position_ids=at,
                past_key_values=cache,
            ).logits
            at = at + there
        for i, tokens in enumerate(([first, last], [first, last, last, last])):
            own = model(**_counted(alone[i]), use_cache=True).past_key_values
            for token in tokens:
                expected = model(input_ids=token, past_key_values=own).logits
            assert (got[i] - expected[0]).abs().max() < 2e-4


def _counted(inputs):
    """Inputs with the ids that generate would pass."""
    ids = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return {**inputs, "position_ids": ids}


@pytest.mark.parametrize("slug", ["fastv", "visiondrop", "sparsevlm"])
def test_windows_slide_alike_by_one_token_and_by_several(slug):
    """Merged tokens stand elsewhere than they came from: masks and caches count alike."""
    model, images = zoo.model("gemma3"), [zoo.sample("gemma3", "image", i) for i in (1, 0, 1)]
    inputs = zoo.batch(
        "gemma3", [zoo.joined("gemma3", zoo.joined("gemma3", *images[:2]), images[2])]
    )
    new = torch.tensor([[99] * 7 + [96] * 3])
    found = []
    with torch.inference_mode(), foveate.attach(model, foveate.create(slug, keep=0.5)):
        for step in (1, 2, 5):
            cache = model(**inputs, logits_to_keep=1, use_cache=True).past_key_values
            steps = [model(input_ids=x, past_key_values=cache).logits for x in new.split(step, 1)]
            found.append(torch.cat(steps, 1))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=1e-4)
