import pytest
import torch

import foveate
from foveate.errors import InvalidParameter
from foveate.methods.layers.base import item_batches
from foveate.methods.layers.llavolta import LLaVolta, setting_at
from tests.engine.running import pair
from tests.families import zoo
from tests.methods.test_layers import boundary


def test_windows_are_as_even_as_can_be():
    for n, keep in ((64, 0.125), (10, 4), (7, 5), (9, 9)):
        window, length = LLaVolta(keep=keep)._windows(n)
        assert int(length.sum()) == n and length.max() - length.min() <= 1
        assert (window.diff() >= 0).all() and len(length) == (8 if n == 64 else keep)


def test_a_stride_drops_what_fills_no_window():
    window, length = LLaVolta(stride=3)._windows(8)
    assert window.tolist() == [0, 0, 0, 1, 1, 1, -1, -1] and length.tolist() == [3, 3]
    assert LLaVolta(stride=9)._windows(4)[1].tolist() == [4]


def test_every_item_is_pooled_by_itself():
    state = boundary()
    merge = LLaVolta(keep=0.5).at_boundary(2, 8, state)
    for rows, columns in item_batches(state):
        for b, own in zip(rows.tolist(), columns, strict=True):
            assert merge.into[b, own].tolist() == own[::2].repeat_interleave(2).tolist()
            assert (merge.weight[b, own] == 0.5).all()
    assert LLaVolta(keep=1.0).at_boundary(2, 8, state) is None
    assert LLaVolta(stride=1).at_boundary(2, 8, state) is None


def test_light_and_heavy_training():
    four = ((8, 2, 2, 1), (2, 2, 16, 0), (1300, 2600, 3900))
    assert [setting_at(i, *four) for i in (0, 1300, 1301, 3900, 3901, 9999)] == [
        (8, 2), (8, 2), (2, 2), (2, 16), (1, 0), (1, 0),
    ]  # fmt: skip
    assert setting_at(5000, (8,), (2,), (10000,)) == (8, 2)
    assert setting_at(500, (1,), (33,), (2600,)) == (1, 33)


def test_training_keeps_every_target(monkeypatch):
    model = zoo.model("llava")
    _, batch = pair("llava")
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == zoo.IMAGE, -100)
    # What precedes a row's first token is padding, which predicts nothing.
    labels = labels.masked_fill(batch["attention_mask"].cumsum(1) <= 1, -100)
    counts = []

    def counting(logits, labels, vocab_size, **kwargs):
        counts.append(int((labels[:, 1:] != -100).sum()))
        return logits.sum()

    monkeypatch.setattr(type(model), "loss_function", staticmethod(counting))
    for method in (LLaVolta(keep=1.0), LLaVolta(keep=0.25)):
        with foveate.attach(model, method), torch.no_grad():
            model(**batch, labels=labels)
    assert counts[0] == counts[1] > 0


def test_what_is_no_layer_or_window_is_refused():
    with pytest.raises(InvalidParameter, match=r"the model has 4 decoder layers \(0-3\)"):
        LLaVolta(layer=4).boundaries(4)
    with pytest.raises(InvalidParameter, match="layer=-1"):
        LLaVolta(layer=-1)
    with pytest.raises(InvalidParameter, match="stride=0"):
        LLaVolta(stride=0)
