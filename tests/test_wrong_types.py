"""Values of a wrong kind, given to what is public: one sentence each, or an answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import foveate
from foveate.tokens import Grid
from tests.families import zoo

VALUES = [
    None, 3, -1, 2.5, float("nan"), True, "x", "", b"x", [], [1], {}, {"a": 1}, object(), int,
    torch.ones(2, 3), torch.tensor(1), np.float32(0.5), np.int64(3),
]  # fmt: skip
MODEL = zoo.model("llava")
GRID = Grid(1, 4, 4)


def attached(*arguments, **parameters):
    with foveate.attach(*arguments, **parameters):
        pass


CALLS = {
    "attach": lambda x: attached(x, "divprune"),
    "attach method": lambda x: attached(MODEL, x),
    "attach keep": lambda x: attached(MODEL, "divprune", keep=x),
    "create": foveate.create,
    "from_dict": foveate.from_dict,
    "from_pretrained": foveate.from_pretrained,
    "from_plan": foveate.from_plan,
    "register": foveate.register,
    "+": lambda x: foveate.FastV() + x,
    "+ from the right": lambda x: x + foveate.FastV(),
    "budget": foveate.DivPrune(keep=4).budget,
    "budget in the tower": foveate.ToMe(keep=4).budget,
    "budget of frames": foveate.Downsample(keep=0.25).budget,
    "budget of t": lambda x: foveate.DivPrune(keep=1).budget(Grid(x, 2, 2)),
    "budget of w": lambda x: foveate.ToMe(keep=1).budget(Grid(1, 2, x)),
    "mini": lambda x: foveate.mini.model_card(x),
    "world task": lambda x: foveate.mini.world.items(x, "test", 1),
    "world split": lambda x: foveate.mini.world.items("I1", x, 1),
    "world n": lambda x: foveate.mini.world.items("I1", "test", x),
    "world start": lambda x: foveate.mini.world.items("I1", "test", 1, start=x),
    "world size": lambda x: foveate.mini.world.items("I1", "test", 1, size=x),
    "world patch": lambda x: foveate.mini.world.items("I1", "test", 1, patch=x),
    "world form": lambda x: foveate.mini.world.items("I1", "test", 1, form=x),
    **{
        f"tune {name}": lambda x, name=name: foveate.tune(MODEL, None, "absent.jsonl", **{name: x})
        for name in (
            "methods", "keep", "max_drop", "budget_flops", "searcher", "held_out", "batch", "frames"
        )
    },
    "tune model": lambda x: foveate.tune(x, None, "absent.jsonl"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_one_sentence_or_an_answer(name):
    for value in VALUES:
        try:
            CALLS[name](value)
        except foveate.FoveateError as error:
            text = str(error)
            assert text.endswith((".", "?")) and "\n" not in text, (value, text)


@pytest.mark.parametrize("value", [None, 3, "x", [], np.float32(1)])
def test_what_belongs_to_logits_is_a_tensor(value):
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    with foveate.attach(MODEL, "divprune", keep=4) as attachment, torch.no_grad():
        MODEL(**inputs)
        for call in (attachment.align_labels, attachment.expand_logits):
            with pytest.raises(foveate.UnsupportedCall, match="is not a tensor"):
                call(value)


@pytest.mark.parametrize("name", [None, 3, [], {}, "imag"])
def test_no_embedded_model(name):
    with pytest.raises(foveate.FoveateError, match="Unknown embedded model"):
        foveate.mini(name)


def test_numbers_of_numpy_are_numbers():
    assert foveate.DivPrune(keep=np.int64(4)).budget(GRID) == 4
    world = foveate.mini.world
    (one,) = world.items("I1", "test", np.int64(1), start=np.int64(2), size=np.int64(64))
    assert one.id == world.item("I1", "test", 2).id
    with pytest.raises(foveate.FoveateError, match=r"absent\.jsonl"):
        foveate.tune(MODEL, None, "absent.jsonl", keep=[np.float32(0.5)], batch=np.int64(4))
