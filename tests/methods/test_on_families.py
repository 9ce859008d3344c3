"""Every registered method on every family that can host it: exact budgets, batch = single."""

from __future__ import annotations

import pytest
import torch

import foveate
from foveate.family_support import UNSUPPORTED, supports
from foveate.method import registered
from foveate.parts import CachesPart, DetourPart, LayersPart, RulePart
from tests.engine.running import close, generate, pair
from tests.families import zoo
from tests.methods.made import made

QUICK = {"llava", "llava_next", "llava_onevision", "qwen2_5_vl", "gemma3"}
# What the refusal says of the way out, or of the reason.
SAYS = {
    **dict.fromkeys(UNSUPPORTED, "no attention"),
    "downsample": "one image size",
    **dict.fromkeys(("tome", "dymu", "tca"), "VisionZip"),
}
CASES = [
    pytest.param(
        slug,
        name,
        modality,
        marks=() if name in QUICK and modality == "image" else pytest.mark.slow,
    )
    for slug in registered()
    for name, modality in zoo.CASES
]


def halved(slug):
    """A method that keeps half, or all where it only changes how layers compute."""
    return made(slug, **{"keep": 0.5} if registered()[slug].reduces else {})


@pytest.mark.parametrize("slug,name,modality", CASES)
def test_method_on_family(slug, name, modality):
    model = zoo.model(name)
    alone, batch = pair(name, modality)
    method = halved(slug)
    if not supports(slug, name, modality):
        with foveate.attach(model, method), pytest.raises(foveate.FoveateError, match=SAYS[slug]):
            generate(model, alone[0], 1)
        return
    bare = generate(model, batch, 4)
    with foveate.attach(model, method) as att:
        singles, reports = [], []
        for one in alone:
            singles.append(generate(model, one, 4))
            reports.append(att.report)
        rows = generate(model, batch, 4)
        together = att.report
    for i, single in enumerate(singles):
        assert close((rows[0][i : i + 1], rows[1][i : i + 1]), single)
    for i, report in enumerate(reports):
        assert report.tokens_out == together.tokens_out[i : i + 1]
        grid = report.traces[0].layout.grid
        if "tokens" in method.stages:
            assert report.tokens_by_layer[0][0] == method.budget(grid)
        assert len(report.kept[0]) == report.tokens_out[0]
        if method.reduces:
            assert report.flops < report.flops_full and report.kv_bytes < report.kv_bytes_full
            # Rules, caches and detours leave every token in the stream, unless they drop too.
            whole = RulePart | CachesPart | DetourPart
            shorter = any(
                isinstance(p, LayersPart) or not isinstance(p, whole) for p in method.parts()
            )
            assert (report.tokens_out[0] < report.tokens_in[0]) == shorter
        else:
            assert report.flops >= report.flops_full and report.kv_bytes == report.kv_bytes_full
            assert report.tokens_out == report.tokens_in
    assert torch.equal(generate(model, batch, 4)[1], bare[1])
    if not method.reduces:
        assert not close(rows, bare)
    with foveate.attach(model, made(slug, **method.bare)):
        assert close(generate(model, batch, 4), bare)


@pytest.mark.parametrize("slug", registered())
def test_second_turn_goes_on_from_the_kept_tokens(slug):
    """Two turns on one cache equal one call with the same ids: tokens are chosen once."""
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    ones = {**one, "attention_mask": torch.ones_like(one["input_ids"])}
    method = halved(slug)
    with foveate.attach(model, method), torch.no_grad():
        first = model.generate(
            **ones, max_new_tokens=3, do_sample=False, return_dict_in_generate=True
        )
        more = torch.cat([first.sequences, torch.tensor([[8, 9, 10]])], 1)
        second = model.generate(
            input_ids=more,
            attention_mask=torch.ones_like(more),
            past_key_values=first.past_key_values,
            max_new_tokens=3,
            do_sample=False,
        )
        loop = model(**ones, use_cache=True)
        for column in range(ones["input_ids"].shape[1], more.shape[1]):
            new = more[:, column : column + 1]
            loop = model(input_ids=new, past_key_values=loop.past_key_values)
        expected = []
        for _ in range(3):
            logits = loop.logits[:, -1].clone()
            logits[:, [zoo.IMAGE, zoo.VIDEO]] = float("-inf")
            expected.append(int(logits.argmax()))
            new = torch.tensor([expected[-1:]])
            loop = model(input_ids=new, past_key_values=loop.past_key_values)
    assert second[0, -3:].tolist() == expected


@pytest.mark.parametrize("slug", registered())
def test_plain_text_is_read_as_ever(slug):
    """Without visual tokens a method changes nothing, unless it says that it places words too."""
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.text_sample("llava", i) for i in (0, 1)])
    bare, method = generate(model, inputs, 4), halved(slug)
    with foveate.attach(model, method):
        run = generate(model, inputs, 4)
    assert close(run, bare) != any(getattr(p, "textual", False) for p in method.parts())
