import pytest
import torch

import foveate
from foveate.errors import InvalidParameter
from foveate.methods.layers.transprune import TransPrune
from foveate.ops.transition import transition
from foveate.signals import DecoderTransition
from tests.conformance.boundary import one_sample
from tests.families import zoo


def test_the_papers_schedule_at_32_layers_and_scaled():
    method = TransPrune()
    assert method.boundaries(32) == (7, 9, 12)
    assert method.ratios(32, method.keep) == (0.875, 0.625, 0.125)
    assert method.window(32) == (6, 7, 8, 9, 10, 11)
    assert method.boundaries(28) == (6, 8, 10) and method.boundaries(8) == (2, 3)
    assert [TransPrune().boundaries(n) for n in (1, 2, 3)] == [(), (1,), (1,)]


@pytest.mark.parametrize("layers", [3, 8, 28, 32, 48])
@pytest.mark.parametrize("share", [0.41, 0.5, 0.9])
def test_the_ratios_have_the_mean_share_asked_for(layers, share):
    stages = TransPrune().boundaries(layers)
    bounds, ratios = (0, *stages, layers), (1.0, *TransPrune().ratios(layers, share))
    spans = [b - a for a, b in zip(bounds, bounds[1:], strict=False)]
    mean = sum(r * n for r, n in zip(ratios, spans, strict=True)) / layers
    assert mean == pytest.approx(share, abs=1e-6) and list(ratios) == sorted(ratios, reverse=True)


def state(seen, visual=8):
    """One layer's transitions (N, 2) of attention; the MLP returns nothing."""
    both = torch.stack([seen, torch.zeros_like(seen)])[None]
    return one_sample(torch.zeros(1, len(seen), 2), 1, visual, {DecoderTransition(0): both})


def test_a_sub_module_that_turns_nothing_leaves_its_factor():
    x = torch.randn(1, 12, 5)
    seen = transition(x, 3 * x)[0]
    torch.testing.assert_close(TransPrune()._ttv(0, state(seen)), torch.full((1, 12), 3 / 12))


def test_a_transition_depends_on_its_own_token_only():
    before, after = torch.randn(1, 12, 5), torch.randn(1, 12, 5)
    seen, order = transition(before, after), torch.randperm(12)
    assert torch.equal(transition(before[:, order], after[:, order]), seen[:, order])
    plain = TransPrune()._ttv(0, state(seen[0]))
    torch.testing.assert_close(TransPrune()._ttv(0, state(seen[0, order])), plain[:, order])


def test_the_papers_softmax_and_direction():
    seen = torch.tensor([[2.0, -1.0], [1.0, 1.0], [1.0, 0.0], [4.0, 0.5]])
    paper = TransPrune(direction="abs", softmax_over="visual")
    turned = torch.tensor([0.0, 1.0, 1.0, 0.0]) * (1 - seen[:, 1].abs()).exp()
    expected = seen[:, 0] * turned / turned.sum()
    torch.testing.assert_close(paper._ttv(0, state(seen, 2))[0], expected)


def test_survivors_keep_the_history_of_earlier_layers():
    """The softmax of a layer goes on counting the columns that left behind it."""
    seen = transition(torch.randn(1, 12, 5), torch.randn(1, 12, 5))[0]
    first = state(seen)
    before = TransPrune()._ttv(0, first)
    later = state(seen[::2])
    later.notes = first.notes
    torch.testing.assert_close(TransPrune()._ttv(0, later), before[:, ::2])


def test_without_iga_nothing_attends():
    method = TransPrune(use_iga=False, pruning_layer_list=(1,), image_token_ratio_list=(0.5,))
    seen = transition(torch.randn(1, 12, 5), torch.randn(1, 12, 5))[0]
    keep = method.at_boundary(1, 2, state(seen))
    assert int(keep.sum()) == 12 - 4


def test_layers_and_caches_hold_what_the_ratios_say():
    model, batch = zoo.model("gemma3"), zoo.batch("gemma3", [zoo.sample("gemma3", "image")])
    method = TransPrune(pruning_layer_list=(1, 3), image_token_ratio_list=(0.7, 0.2))
    with foveate.attach(model, method) as att, torch.no_grad():
        model(**batch)
    n = att.report.tokens_in[0]
    assert att.report.tokens_by_layer[0][:4] == [n, int(0.7 * n), int(0.7 * n), int(0.2 * n)]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"pruning_layer_list": (3, 2)}, "pruning_layer_list="),
        ({"accumulating_layer_list": (0, 1)}, "accumulating_layer_list="),
        ({"image_token_ratio_list": (0.5, 0.6)}, "never rise"),
        (
            {"pruning_layer_list": (1,), "image_token_ratio_list": (0.5, 0.2)},
            "2 ratios, but pruning_layer_list has 1",
        ),
        ({"alpha": 2}, "alpha=2"),
        ({"direction": "up"}, "direction='up'"),
        ({"softmax_over": "none"}, "softmax_over='none'"),
    ],
)
def test_what_is_no_schedule_is_refused(parameters, words):
    with pytest.raises(InvalidParameter, match=words):
        TransPrune(**parameters)


def test_what_the_decoder_lacks_is_refused():
    with pytest.raises(InvalidParameter, match="pruning_layer_list=.* up to 3"):
        TransPrune(pruning_layer_list=(2, 4)).boundaries(4)
    with pytest.raises(InvalidParameter, match="starts after layer 1"):
        TransPrune(pruning_layer_list=(1, 3), accumulating_layer_list=(2,)).window(4)


def test_the_layer_in_front_of_the_boundary_counts():
    """Layer 0 turns all alike, so that layer 1, which runs last before boundary 2, decides."""
    method = TransPrune(
        pruning_layer_list=(2,),
        accumulating_layer_list=(1, 2),
        image_token_ratio_list=(0.5,),
        use_iga=False,
    )
    even = torch.tensor([1.0, 1.0]).expand(12, 2)
    last = even.clone()
    last[[2, 4, 5, 8], 0] = 3.0
    signals = {
        DecoderTransition(i): torch.stack([x, torch.zeros_like(x)])[None]
        for i, x in enumerate((even, last))
    }
    found = one_sample(torch.zeros(1, 12, 2), 1, 8, signals)
    keep = method.at_boundary(2, 4, found) & found.visual
    assert keep[0].nonzero()[:, 0].tolist() == [2, 4, 5, 8]
