"""DyVTE: who leaves when, what is left in sequences and caches, and how its gates are taught."""

import pytest
import torch

import foveate
from foveate.benchmarks.controls import DropAllTokens
from foveate.errors import BudgetError, InvalidParameter
from foveate.methods.layers.dyvte import DyVTE, Gates, exit_labels, latest, text_features
from foveate.trained import lent, untrained
from tests.engine.running import close, generate, pair
from tests.families import zoo

LAYERS = 5


class Scripted(Gates):
    """Gates that say yes behind a given layer of each row."""

    def __init__(self, when):
        super().__init__(32, LAYERS, 4)
        self.when = when

    def forward(self, layer, x):
        when = self.when[-len(x) :]
        leave = torch.tensor([float(layer >= w) for w in when])
        return torch.stack([torch.full_like(leave, 0.5), leave], 1)


def batch():
    return zoo.batch("llava", [zoo.sample("llava", "image", i) for i in range(2)])


def test_gates_that_never_open_are_the_bare_model():
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    bare = generate(model, one)
    with lent("dyvte", Scripted([9])), foveate.attach(model, DyVTE()) as att:
        assert close(generate(model, one), bare)
        assert att.report.tokens_out == att.report.tokens_in


@pytest.mark.parametrize("behind", [0, 2, 3])
def test_an_exit_is_a_prompt_whose_pictures_end_there(behind):
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    with foveate.attach(model, DropAllTokens(k=behind + 1)):
        expected = generate(model, one)
    with lent("dyvte", Scripted([behind])), foveate.attach(model, DyVTE()) as att:
        assert close(generate(model, one), expected)
        held = att.report.tokens_by_layer[0]
    n = att.report.tokens_in[0]
    assert held == [n] * (behind + 1) + [0] * (LAYERS - 1 - behind)


def test_each_row_leaves_by_itself_and_sequences_end_short():
    model, inputs = zoo.model("llava"), batch()
    with lent("dyvte", Scripted([1, 2])), foveate.attach(model, DyVTE()) as att, torch.no_grad():
        out = model(**inputs, use_cache=True)
        report = att.report
    n = report.tokens_in[0]
    assert report.tokens_by_layer == [[n, n, 0, 0, 0], [n, n, n, 0, 0]]
    length, text = inputs["input_ids"].shape[1], inputs["attention_mask"].sum(1) - n
    cache = out["cache" if "cache" in out else "past_key_values"]
    held = [layer.get_seq_length() for layer in cache.layers]
    assert held[:3] == [length, length, int(max(text[0], text[1] + n))]
    assert held[3:] == [int(text.max())] * 2, "no column of a picture is left"
    assert out.logits.shape[1] == int(text.max())
    assert report.flops < report.flops_full


def test_keep_is_the_latest_exit_and_gates_may_be_earlier():
    assert [latest(s, 6) for s in (0.999, 5 / 6, 0.5, 0.34, 1 / 6)] == [6, 5, 3, 2, 1]
    with pytest.raises(BudgetError, match="layer 0 keeps all tokens"):
        latest(0.1, 6)
    assert DyVTE().boundaries(6) == (1, 2, 3, 4, 5) and DyVTE(keep=0.5).boundaries(6) == (1, 2, 3)
    assert DyVTE(keep=1.0).boundaries(6) == () and DyVTE(keep=7).boundaries(3) == (1, 2)
    model, inputs = zoo.model("llava"), batch()
    with lent("dyvte", Scripted([0, 9])), torch.no_grad():
        with foveate.attach(model, DyVTE(keep=0.6)) as att:
            model(**inputs)
            n = att.report.tokens_in[0]
            assert att.report.tokens_by_layer == [[n, 0, 0, 0, 0], [n, n, n, 0, 0]]
        with foveate.attach(model, DyVTE(keep=n)) as att:
            model(**inputs)
            assert att.report.tokens_out == [n, n], "all tokens in all layers"
        with foveate.attach(model, DyVTE(exit_bias=-2.0)) as att:
            model(**inputs)
            assert att.report.tokens_out == [n, n]


def test_equal_logits_stay():
    model = zoo.model("llava")
    gates = untrained(DyVTE(hidden=4), 0, width=32, layers=LAYERS)
    for weight in gates.parameters():
        weight.data.zero_()
    with lent("dyvte", gates), foveate.attach(model, DyVTE()) as att, torch.no_grad():
        model(**batch())
        assert att.report.tokens_out == att.report.tokens_in


def test_what_a_gate_reads():
    hidden = torch.arange(8.0).view(1, 8, 1).expand(3, -1, 2)
    visual = torch.zeros(3, 8, dtype=torch.bool)
    visual[:, 1:4] = True
    visual[1, 6] = True
    valid = torch.ones(3, 8, dtype=torch.bool)
    valid[2, 5] = False
    x = text_features(hidden, visual, valid, torch.tensor([7, 7, 6]))
    assert x[0].tolist() == [5, 5, 7, 7], "columns 4 to 6, the last one apart"
    assert x[1].tolist() == [7, 7, 7, 7], "nothing between the last picture and the last column"
    assert x[2].tolist() == [4, 4, 6, 6]


def test_labels_ask_for_the_same_words_and_no_larger_loss():
    labels = torch.tensor([[-100, 1, 2]] * 4)
    full = torch.full((4, 3, 4), 0.0)
    full[:, 1, 1] = full[:, 2, 2] = 3.0
    out = full.clone()
    out[1, 1, 1] = 2.9
    out[2, 2, 3] = 3.5
    out[3, 0, 3] = 9.0
    assert exit_labels(full, out, labels, 0.99, 1.03).tolist() == [1, 0, 0, 1]
    assert exit_labels(full, out, labels, 0.99, 1.5).tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"exit_bias": float("nan")}])
def test_what_makes_no_gate_is_refused(wrong):
    with pytest.raises(InvalidParameter, match=next(iter(wrong))):
        DyVTE(**wrong)
