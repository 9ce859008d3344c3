"""`budget(grid)` is exactly what enters the language model, or the call is refused."""

from __future__ import annotations

from itertools import product

import pytest
import torch

import foveate
from foveate.errors import BudgetError, UnsupportedCall
from foveate.family_support import supports
from foveate.method import Method, registered
from foveate.parts import EncodersPart, TokensPart
from foveate.tokens import Grid
from tests.families import zoo
from tests.methods.made import made


def acting(kind: type) -> list[str]:
    return [s for s, c in registered().items() if any(isinstance(p, kind) for p in c().parts())]


ENCODERS, TOKENS = acting(EncodersPart), acting(TokensPart)
TILED = ["llava_next", "llava_onevision"]
HOSTED = [(f, m) for f, m in zoo.CASES if supports("tome", f, m)]


def checked(name: str, modality: str, method: Method) -> list[int]:
    """What enters of two items in one batch, as `budget` says it."""
    model = zoo.model(name)
    inputs = zoo.batch(name, [zoo.sample(name, modality, i) for i in (0, 1)])
    with foveate.attach(model, method) as attached, torch.no_grad():
        model(**inputs)
    report = attached.report
    entered = [layers[0] for layers in report.tokens_by_layer]
    assert [method.budget(t.layout.grid) for t in report.traces] == entered, method
    for trace, n in zip(report.traces, entered, strict=True):
        if method.stages[-1] != "layers":
            # Every token holds slots of its own, but those that stand for no slot.
            held = trace.assign[trace.assign >= 0].unique()
            assert len(held) == int((trace.index >= 0).sum()) <= n == len(trace.index)
            assert trace.size[held].sum() == (trace.assign >= 0).sum()
    return entered


def grids_of(name: str) -> list[Grid]:
    """Extents of the two pictures."""
    model = zoo.model(name)
    inputs = zoo.batch(name, [zoo.sample(name, "image", i) for i in (0, 1)])
    with foveate.attach(model, foveate.DivPrune(keep=1.0)) as attached, torch.no_grad():
        model(**inputs)
    return [trace.layout.grid for trace in attached.report.traces]


@pytest.mark.parametrize("slug", ENCODERS)
@pytest.mark.parametrize(("name", "modality"), HOSTED)
def test_encoder_methods_leave_their_budget(name, modality, slug):
    for keep in (0.3, 0.5, 0.9, 5, 1.0):
        checked(name, modality, made(slug, keep=keep))


@pytest.mark.parametrize("name", TILED)
def test_a_count_is_kept_of_every_view_as_far_as_it_has_patches(name):
    grids = grids_of(name)
    for n in (5, 9, 12, 16):
        expected = [sum(min(n, v) for v in grid.views) + grid.special for grid in grids]
        assert checked(name, "image", foveate.ToMe(keep=n)) == expected
    with pytest.raises(BudgetError, match="keep=17"):
        checked(name, "image", foveate.ToMe(keep=17))
    with pytest.raises(BudgetError, match="keep=17"):
        foveate.ToMe(keep=17).budget(grids[0])
    expected = [sum(max(1, v - 9) for v in grid.views) + grid.special for grid in grids]
    assert checked(name, "image", foveate.DyMU(r_total=9)) == expected
    expected = [sum(max(1, v // 3) for v in grid.views) + grid.special for grid in grids]
    assert checked(name, "image", foveate.ToMe(kth=3)) == expected


def test_two_encoder_methods_leave_what_the_stricter_one_keeps():
    for name, (a, b) in product(["llava", *TILED], [(0.5, 0.25), (0.25, 0.5), (0.5, 0.5)]):
        stricter = foveate.ToMe(keep=min(a, b))
        for method in (
            foveate.TCA(keep=a) + foveate.ToMe(keep=b),
            foveate.DyMU(keep=a, repeat_merged_tokens=False) + foveate.ToMe(keep=b),
            foveate.ToMe(keep=a) + foveate.ToMe(keep=b),
        ):
            entered = checked(name, "image", method)
            grids = grids_of(name)
            assert entered == [stricter.budget(grid) for grid in grids]


@pytest.mark.parametrize("first", ENCODERS)
@pytest.mark.parametrize("name", ["llava", *TILED])
def test_what_stands_behind_an_encoder_method_knows_what_is_left(name, first):
    # What its tokens stand for inside the language model is another matter.
    alone = {"repeat_merged_tokens": False} if first == "dymu" else {}
    for second in TOKENS:
        keep = 0.9 if second in ("grid_pool", "fourier_vlm", "globalcom2", "hired") else 0.6
        how = {"keep": keep, "positions": "original"}
        checked(name, "image", made(first, keep=0.5, **alone) + made(second, **how))


@pytest.mark.slow
@pytest.mark.parametrize("second", ["grid_pool", "fourier_vlm", "aim", "fastervlm", "divprune"])
@pytest.mark.parametrize("name", ["llava", *TILED])
def test_behind_anything_that_pruned_or_merged_budgets_hold_or_are_refused(name, second):
    answered = 0
    for first, (a, b) in product(TOKENS, [(0.5, 0.9), (0.2, 0.2), (0.9, 1.0)]):
        try:
            checked(name, "image", made(first, keep=a) + made(second, keep=b))
            answered += 1
        except (BudgetError, UnsupportedCall) as error:
            assert "\n" not in str(error) and "keep" in str(error)
    assert answered > len(TOKENS)


@pytest.mark.parametrize("name", ["llava", "paligemma", "video_llava"])
def test_a_smaller_picture_is_merged_too(name):
    method = foveate.Downsample(keep=0.5) + foveate.ToMe(keep=0.5)
    model = zoo.model(name)
    inputs = zoo.batch(name, [zoo.sample(name, "image", 0)])
    with foveate.attach(model, method) as attached, torch.no_grad():
        model(**inputs)
    trace = attached.report.traces[0]
    smaller = foveate.Downsample(keep=0.5).budget(trace.layout.grid)
    assert attached.report.tokens_by_layer[0][0] == method.budget(trace.layout.grid) == smaller // 2
    assert trace.assign.shape == (trace.layout.n,) and (trace.assign >= 0).all()
    assert trace.index.max() < trace.layout.n and len(trace.index.unique()) == len(trace.index)
