"""Counts of operators and host waits: the counter itself, and what must stay small."""

import pytest
import torch

import foveate
from perf import dispatch
from perf.fake_cuda import FakeCudaTensor, counted, fake_cuda


@pytest.mark.parametrize(
    ("kind", "run"),
    [
        ("item", lambda x: x.sum().item()),
        ("item", lambda x: bool((x > 1).any())),
        ("tolist", lambda x: x.tolist()),
        ("nonzero", lambda x: x.nonzero()),
        ("boolean index", lambda x: x[x > 1]),
        ("copy to the CPU", lambda x: x.cpu()),
        ("copy to the GPU", lambda x: x + torch.ones(4).to(x.device)),
        ("made on the CPU", lambda x: torch.tensor([1.0], device=x.device)),
        ("index on the CPU", lambda x: x[torch.tensor([0, 1])]),
        ("unique", lambda x: x.unique()),
    ],
)
def test_what_makes_the_host_wait_is_counted(kind, run):
    with fake_cuda():
        x = FakeCudaTensor(torch.arange(4.0))
        with counted() as found:
            run(x)
    assert [k for k, _ in found] == [kind]


def test_what_only_launches_is_not_counted():
    with fake_cuda():
        x = FakeCudaTensor(torch.arange(4.0))
        with counted() as found:
            y = x[x.argsort()].masked_fill(x > 1, 0.0).cumsum(0)
            y[x > 2] = 5.0
            y = y + torch.ones(4).to(x.device, non_blocking=True) + torch.zeros(4, device=x.device)
    assert not found and y.device.type == "cuda"
    assert y.held.tolist() == [1.0, 2.0, 2.0, 6.0]


def test_operators_are_counted_without_views():
    with dispatch.Operators() as seen:
        (torch.ones(2, 3).t().unsqueeze(0) @ torch.ones(2, 2)).relu()
    assert seen.count["relu"] == 1 and "t" not in seen.count


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(dispatch, "LAYERS", 4)
    monkeypatch.setattr(dispatch, "SIDE", 6)


def test_methods_get_their_rows(narrow, monkeypatch):
    some = [("bare", None), ("fastv", foveate.FastV(k=1, keep=0.5))]
    monkeypatch.setattr(dispatch, "methods", lambda: iter(some))
    result = dispatch.measure()
    row = result["rows"]["fastv"]
    assert row["waits"]["boundaries"] == 1
    assert row["operators"]["prefill"] > result["rows"]["bare"]["operators"]["prefill"]
    assert "| fastv | +" in dispatch.page(result)


def test_prefill_and_decode_stay_cheap():
    """With a real model's depth: what is kept whole costs nothing, and no one waits for long."""
    bare, kept = (dispatch.operators(m) for m in (None, foveate.create("divprune", keep=1.0)))
    assert kept["prefill"] <= 1.05 * bare["prefill"] and kept["decode"] == bare["decode"]


@pytest.mark.parametrize(
    "slug",
    ["random", "divprune", "fastervlm", "visionzip", "tome", "tca", "fastv", "pyramiddrop"],
)
@pytest.mark.parametrize("batch", [1, 4])
def test_the_host_hardly_waits(narrow, slug, batch):
    """Ids are read before the encoder runs; a boundary asks how many columns stay."""
    method = foveate.create(slug, keep=0.5)
    bare, waits = dispatch.waits(None, batch), dispatch.waits(method, batch)
    inside = any(p.stage == "layers" for p in method.parts())
    assert waits["prefill"] <= 4 + 2 * waits["boundaries"] and (inside or waits["prefill"] <= 4)
    assert waits["after_encoder"] == bare["after_encoder"] and not waits["decode"]


@pytest.mark.parametrize("slug", ["divprune", "tome", "fastv", "pyramiddrop"])
def test_decode_steps_launch_hardly_more(narrow, slug):
    method = foveate.create(slug, keep=0.5)
    inside = any(p.stage == "layers" for p in method.parts())
    added = dispatch.operators(method)["decode"] - dispatch.operators(None)["decode"]
    assert added <= 3 * inside
