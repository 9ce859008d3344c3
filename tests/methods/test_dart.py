import pytest
import torch

import foveate
from foveate.errors import InvalidParameter
from foveate.methods.layers.dart import DART
from foveate.parts import BoundaryState
from foveate.signals import Signals
from tests.families import zoo

ROWS = [
    [-1, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1],
    [-1, -1, 0, 0, 0, 0, -1, 1, 1, 1, 1, 1, -1],
    [-1] * 13,
]


def boundary(method, seed=0, scale=None):
    g = torch.Generator().manual_seed(seed)
    item = torch.tensor(ROWS)
    hidden = torch.randn(3, 13, 6, generator=g)
    keys = torch.randn(3, 2, 13, 4, generator=g)
    return BoundaryState(
        hidden=hidden if scale is None else hidden * scale,
        valid=torch.ones(3, 13, dtype=torch.bool),
        visual=item >= 0,
        item=item,
        entered=(item >= 0).sum(1),
        last=torch.full((3,), 12),
        labels=None,
        attention=None,
        signals=Signals({method.needs[0]: keys}),
    )


def told(method, state, b, budget):
    """The rule for one row, in plain words."""
    norms = state.signals[method.needs[0]].abs().sum((1, 3))[b]
    visual = state.visual[b].nonzero()[:, 0].tolist()
    text = [i for i in range(13) if i > max(visual, default=13)]
    own = sorted(visual, key=lambda i: -norms[i])[: min(method.pivot_image_token, budget)]
    pivots = own + sorted(text, key=lambda i: -norms[i])[: method.pivot_text_token]
    kept, left = list(own), budget - len(own)
    for number, pivot in enumerate(pivots):
        quota = left // len(pivots) + (number < left % len(pivots))
        rest = [i for i in visual if i not in kept]
        x = state.norm(state.hidden[b])
        rest.sort(key=lambda i: torch.cosine_similarity(x[pivot], x[i], 0).item())
        kept += rest[:quota]
    return sorted(kept)


@pytest.mark.parametrize(
    "keep,pivots", [(0.75, (2, 1)), (0.5, (4, 4)), (0.3, (4, 2)), (0.9, (1, 0))]
)
def test_the_rule_as_it_is_told(keep, pivots):
    method = DART(keep=keep, pivot_image_token=pivots[0], pivot_text_token=pivots[1])
    state = boundary(method)
    stays = method.at_boundary(2, 5, state)
    for b, n in enumerate((8, 9, 0)):
        budget = round(keep * n)
        kept = (stays[b] & state.visual[b]).nonzero()[:, 0].tolist()
        assert kept == told(method, state, b, budget) and len(kept) == budget
    assert stays[~state.visual].all()


def test_the_length_of_states_does_not_matter():
    method = DART(keep=0.6)
    scale = torch.rand(3, 13, 1, generator=torch.Generator().manual_seed(5)) + 0.1
    expected = method.at_boundary(2, 5, boundary(method))
    assert torch.equal(method.at_boundary(2, 5, boundary(method, scale=scale)), expected)


def test_it_reads_no_attention_and_all_is_all():
    assert DART(keep=1.0).at_boundary(2, 5, boundary(DART())) is None
    model, batch = zoo.model("llava"), zoo.batch("llava", [zoo.sample("llava", "image")])
    with foveate.attach(model, DART(keep=6)) as att, torch.no_grad():
        model(**batch)
    assert att.report.tokens_by_layer == [[16, 16, 6, 6, 6]]


def test_layers_that_are_not_there_are_refused():
    with pytest.raises(InvalidParameter, match="pruning_loc=0"):
        DART(pruning_loc=0)
    with pytest.raises(InvalidParameter, match="pruning_loc=.* is out of range: .* up to 4"):
        DART(pruning_loc=5).boundaries(5)
    with pytest.raises(InvalidParameter, match="pivot_image_token=0"):
        DART(pivot_image_token=0)


def test_states_are_compared_behind_the_final_norm():
    """The norm's weights change which directions count."""
    method = DART(keep=0.4, pivot_image_token=2, pivot_text_token=1)
    state = boundary(method, seed=4)
    bare = method.at_boundary(2, 4, state)
    weight = torch.tensor([9.0, 0.1, 0.1, 4.0, 0.1, 0.1])
    state.norm = lambda x: x / x.square().mean(-1, keepdim=True).sqrt() * weight
    normed = method.at_boundary(2, 4, state)
    for b in range(2):
        budget = int(normed[b][state.visual[b]].sum())
        assert (normed[b] & state.visual[b]).nonzero()[:, 0].tolist() == told(
            method, state, b, budget
        )
    assert not torch.equal(normed, bare)
