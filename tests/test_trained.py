"""Where trained parts come from, and where they go."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import foveate
from foveate import method as registry
from foveate import trained
from foveate.errors import InvalidParameter, MissingWeights, UnknownName
from foveate.ops.select import top_mask
from foveate.parts import LayersPart
from foveate.trained import TrainedMethod, lent, save_parts, untrained

BASE = {"width": 32, "layers": 5}


@dataclass(frozen=True, kw_only=True, repr=False)
class Line(TrainedMethod, LayersPart):
    """Keep the half that one learned direction likes most."""

    slug = "line"
    shapes = ("inner", "at")
    agreed = ("at",)

    inner: int = 3
    at: int = 1

    def build(self, width, layers):
        return nn.Sequential(nn.Linear(width, self.inner), nn.Linear(self.inner, 1))

    def boundaries(self, layers):
        return (1,)

    def at_boundary(self, k, layers, state):
        score = self.module(state.hidden, layers=layers)(state.hidden)[..., 0]
        return top_mask(score, state.entered // 2, state.visual) | ~state.visual


@pytest.fixture(autouse=True)
def _line(monkeypatch, tmp_path):
    registry.registered()
    monkeypatch.setattr(registry, "_registry", {**registry._registry, "line": Line})
    monkeypatch.setattr(trained, "SHIPPED", tmp_path / "shipped")
    trained._fitting.cache_clear()
    yield
    trained._fitting.cache_clear()


def same(one: nn.Module, two: nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_untrained_parts_are_asked_for_and_depend_on_the_seed_alone():
    like = torch.zeros(1, 2, 32)
    with pytest.raises(MissingWeights, match="train --method line --model DIR"):
        Line().module(like, layers=5)
    torch.manual_seed(1)
    first = Line(weights="random").module(like, layers=5)
    torch.manual_seed(2)
    assert same(first, Line(weights="random:0").module(like, layers=5))
    assert not same(first, Line(weights="random:1").module(like, layers=5))
    assert Line(weights="random", keep=0.5).module(like, layers=5) is first
    half = Line(weights="random").module(like.bfloat16(), layers=5)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in first.parameters())


def test_saved_parts_come_back(tmp_path):
    method = Line(inner=4, keep=0.5)
    module = untrained(method, 3, **BASE)
    save_parts(method, module, tmp_path / "parts", {"name": "toy", **BASE}, seed=3)
    again = foveate.from_pretrained(tmp_path / "parts")
    assert again == Line(inner=4, keep=0.5, weights=str(tmp_path / "parts"))
    assert same(again.module(torch.zeros(32), layers=5), module)
    copied = again.save_pretrained(tmp_path / "copy")
    config = json.loads((copied / "parts.json").read_text())
    assert config["base"] == {"name": "toy", **BASE} and config["made"]["seed"] == 3
    assert set(config["made"]["versions"]) == {"foveate", "torch", "transformers"}
    assert same(foveate.from_pretrained(copied).module(torch.zeros(32), layers=5), module)


def test_a_shipped_set_is_found_by_what_it_fits():
    module = untrained(Line(inner=7), 3, **BASE)
    save_parts(Line(inner=7), module, trained.SHIPPED / "line" / "toy", {"name": "toy", **BASE})
    assert same(Line().module(torch.zeros(32), layers=5), module)
    assert same(Line(weights="toy").module(torch.zeros(32), layers=5), module)
    assert Line().sized(width=32).inner == 7 and Line(weights="random").sized(width=1).inner == 3
    with pytest.raises(MissingWeights, match="for toy, but none for a model with layers 6, width"):
        Line().module(torch.zeros(32), layers=6)
    with pytest.raises(UnknownName, match="did you mean 'toy'"):
        Line(weights="toi").module(torch.zeros(32), layers=5)
    with pytest.raises(MissingWeights, match="has width 16"):
        Line(weights="toy").module(torch.zeros(16), layers=5)
    with pytest.raises(InvalidParameter, match="inner=5 does not match .* trained with inner=7"):
        Line(weights="toy", inner=5).module(torch.zeros(32), layers=5)
    with pytest.raises(InvalidParameter, match="at=2 does not match .* use that value"):
        Line(weights="toy", at=2).module(torch.zeros(32), layers=5)


@pytest.mark.parametrize("weights", ["random:", "random:x", 3])
def test_what_names_no_parts_is_refused(weights):
    with pytest.raises(InvalidParameter, match="weights="):
        Line(weights=weights)


def test_broken_folders(tmp_path):
    with pytest.raises(MissingWeights, match="check the path"):
        Line(weights="no/where").module(torch.zeros(32), layers=5)
    with pytest.raises(MissingWeights, match="There is no folder"):
        foveate.from_pretrained(tmp_path / "no")
    with pytest.raises(MissingWeights, match=r"parts.json can't be read"):
        foveate.from_pretrained(tmp_path)
    folder = save_parts(Line(), untrained(Line(), 0, **BASE), tmp_path, {"name": "toy", **BASE})
    (folder / "parts.safetensors").write_bytes(b"no tensors")
    with pytest.raises(MissingWeights, match="save them again"):
        Line(weights=str(tmp_path)).module(torch.zeros(32), layers=5)
    with pytest.raises(MissingWeights, match="has no learned weights"):
        Line(weights="random").save_pretrained(tmp_path)


def test_what_is_in_training_is_used_as_it_is():
    module = untrained(Line(), 5, **BASE)
    with lent("line", module):
        assert Line().module(torch.zeros(32), layers=5) is module
    with pytest.raises(MissingWeights):
        Line().module(torch.zeros(32), layers=5)
