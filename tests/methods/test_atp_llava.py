"""ATP-LLaVA: thresholds of each input, two scores, the spatial pattern, soft masks."""

from types import SimpleNamespace

import pytest
import torch

import foveate
from foveate.errors import InvalidParameter
from foveate.methods.layers.atp_llava import (
    ATPLLaVA,
    Thresholds,
    both_scores,
    quantile,
    spatial_score,
    statistics,
    text_after_image,
    unit,
)
from foveate.ops.attention import Heads
from foveate.trained import lent, untrained
from tests.families import zoo

LAYERS = 5
SCORES = (None, "both", "self", "cross")


def inputs():
    return zoo.batch("llava", [zoo.sample("llava", "image", i) for i in range(2)])


class Fixed(torch.nn.Module):
    """Thresholds that are told."""

    def __init__(self, redundancy, space):
        super().__init__()
        self.found = redundancy, space

    def forward(self, stats, share, anchor):
        return tuple(torch.full((len(stats), 1), x) for x in self.found)


def held(redundancy, space, **parameters):
    model = zoo.model("llava")
    heads = torch.nn.ModuleList(Fixed(redundancy, space) for _ in range(3)).eval()
    method = ATPLLaVA(weights="random", **parameters)
    with lent("atp_llava", heads), foveate.attach(model, method) as att, torch.no_grad():
        model(**inputs())
    return att.report


def test_behind_the_papers_layers():
    assert ATPLLaVA().boundaries(32) == (5, 15, 25)
    assert ATPLLaVA(layers_of=(4, 14, 24)).boundaries(32) == (5, 15, 25)
    assert ATPLLaVA().boundaries(6) == (1, 3, 5) and ATPLLaVA(keep=1.0).boundaries(6) == ()


def test_thresholds_below_all_scores_keep_all_and_above_all_the_fewest():
    assert held(-1.0, 2.0).tokens_by_layer == [[16] * LAYERS] * 2
    assert [row[-1] for row in held(2.0, 2.0).tokens_by_layer] == [1, 1]
    assert [row[-1] for row in held(2.0, 2.0, min_keep=3).tokens_by_layer] == [3, 3]


def test_a_lower_threshold_keeps_more_and_the_grid_survives_alone():
    kept = [held(t, 2.0, layers_of=(0,)).kept[0] for t in (0.3, 0.5, 0.7)]
    for more, fewer in zip(kept, kept[1:], strict=False):
        assert set(fewer.tolist()) < set(more.tolist())
    sparse = held(2.0, 0.5, min_keep=1).kept[0]
    assert 0 in sparse, "place (0, 0) lies on every grid"
    dense = held(2.0, 0.2).kept[0].tolist()
    assert set(dense) >= {0, 2, 8, 10}, "every second row and column of 4 x 4"


def test_rows_hold_what_their_own_thresholds_let_through():
    model = zoo.model("llava")
    method = ATPLLaVA(weights="random:3", keep=0.5)
    with foveate.attach(model, method) as att, torch.no_grad():
        model(**inputs())
        together = att.report.tokens_by_layer
        alone = []
        for i in range(2):
            model(**zoo.batch("llava", [zoo.sample("llava", "image", i)]))
            alone += att.report.tokens_by_layer
    assert together == alone


def test_untrained_heads_hold_the_share_that_is_wanted():
    model = zoo.model("llava")
    for keep in (0.4, 0.6, 0.8):
        with foveate.attach(model, ATPLLaVA(weights="random", keep=keep)) as att, torch.no_grad():
            model(**inputs())
        for row in att.report.tokens_by_layer:
            assert abs(sum(row) / LAYERS / 16 - keep) < 0.07 and row == sorted(row, reverse=True)


def test_a_quantile_lies_between_two_entries():
    x = torch.tensor([[9.0, 0.2, 0.4, 0.6, 0.8]])
    mask = torch.tensor([[0, 1, 1, 1, 1]]).bool()
    for share, expected in ((0.25, 0.3), (0.5, 0.5), (1.0, 0.8)):
        assert quantile(x, mask, torch.tensor([share]))[0, 0] == pytest.approx(expected)
    assert quantile(x, ~mask & False, torch.tensor([0.5])) == 0


def test_a_mean_query_gives_the_mean_of_logits():
    torch.manual_seed(0)
    heads = Heads(
        torch.randn(2, 4, 7, 3), torch.randn(2, 2, 7, 3), 0.5, torch.ones(2, 7, dtype=torch.bool)
    )
    visual = torch.tensor([[0, 1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0, 0]]).bool()
    text = ~visual & (torch.arange(7) > 3)
    own, cross = both_scores(heads, visual, text)
    key = heads.key.repeat_interleave(2, 1)
    logits = (heads.query @ key.mT * 0.5).mean(1)
    maps = heads.rows(torch.arange(7).expand(2, -1)).mean(1)
    for b in range(2):
        mean = logits[b][visual[b]].mean(0)[visual[b]]
        expected = (mean - mean.min()) / (mean.max() - mean.min())
        assert torch.allclose(own[b][visual[b]], expected, atol=1e-5)
        told = maps[b][text[b]].mean(0)
        assert torch.allclose(cross[b], unit(told[None], visual[b : b + 1])[0], atol=1e-5)


def test_spatial_pattern_of_the_original_grid():
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    place = torch.stack([torch.zeros_like(rows), rows, columns], -1).view(1, -1, 3)
    score = spatial_score(place, (1 / 8, 1 / 4, 1 / 2), 3.0).view(16, 16)
    assert score[0, 8] == 1 - 3 / 64 and score[4, 0] == 1 - 3 / 16 and score[2, 6] == 0.25
    assert score[1, 2] == 0 and (score > 0).sum() == 64
    assert not spatial_score(torch.full((1, 2, 3), -1), (0.5,), 3.0).any()


def test_statistics_see_visual_columns_only():
    x = torch.tensor([[9.0, 0.2, 0.4, 0.6, 9.0]])
    visual = torch.tensor([[0, 1, 1, 1, 0]]).bool()
    found = statistics(x, x, visual)[0]
    assert found.shape == (22,) and found[0] == pytest.approx(0.4) and found[2] == x[0, 3]
    assert found[3] == x[0, 1] and found[10] == x[0, 3]
    assert statistics(x, x, ~visual & False).isfinite().all()


def test_answers_teach_the_thresholds():
    model, batch = zoo.model("llava"), inputs()
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, -2:] = batch["input_ids"][:, -2:]
    method = ATPLLaVA(weights="random", keep=0.5)
    heads = untrained(method, 0, width=32, layers=LAYERS)
    model.requires_grad_(False)
    try:
        with lent("atp_llava", heads), foveate.attach(model, method) as att:
            model(**batch, labels=labels, use_cache=False).loss.backward()
            assert att.report.tokens_out == att.report.tokens_in, "nothing goes in training"
    finally:
        model.requires_grad_(True)
    for head in heads:
        assert isinstance(head, Thresholds)
        assert head.redundancy.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"scores": "all"},
        {"layers_of": (2, 1)},
        {"rates": (0.5, 0.25)},
        {"min_keep": 0},
        {"temperature": 0.0},
    ],
)
def test_what_is_no_rule_is_refused(wrong):
    with pytest.raises(InvalidParameter):
        ATPLLaVA(**wrong)
    with pytest.raises(InvalidParameter, match="up to 3"):
        ATPLLaVA(layers_of=(4,)).boundaries(LAYERS)


def test_scores_are_those_that_the_thresholds_were_trained_with_or_refused():
    model, processor = foveate.mini("nano")
    item = foveate.mini.world.items("I1", "test", 1)[0]
    prompt = "<image> " + item.question
    inputs = processor(images=item.image(), text=prompt, return_tensors="pt")

    def logits(method):
        with foveate.attach(model, method), torch.no_grad():
            return model(**inputs).logits

    assert torch.equal(logits(ATPLLaVA(keep=0.5)), logits(ATPLLaVA(keep=0.5, scores="cross")))
    for scores in ("both", "self"):
        with pytest.raises(InvalidParameter, match=f"'{scores}' .* with scores='cross'"):
            foveate.attach(model, ATPLLaVA(keep=0.5, scores=scores))
    foveate.attach(model, foveate.DivPrune()).detach()
    untrained = {s: logits(ATPLLaVA(keep=0.5, weights="random", scores=s)) for s in SCORES}
    assert torch.equal(untrained[None], untrained["both"])
    assert untrained["cross"].shape != untrained["both"].shape or not torch.equal(
        untrained["cross"], untrained["both"]
    )


def test_text_after_the_image_counts_and_text_before_it_does_not():
    """Padding, text in front and answers ask nothing; text between two pictures does."""
    visual = torch.tensor([[0, 0, 1, 1, 0, 1, 0, 0, 0]]).bool()
    valid = torch.tensor([[0, 1, 1, 1, 1, 1, 1, 1, 1]]).bool()
    labels = torch.full((1, 9), -100)
    state = SimpleNamespace(visual=visual, valid=valid, labels=None)
    assert text_after_image(state)[0].nonzero()[:, 0].tolist() == [4, 6, 7, 8]
    labels[0, 7:] = 5
    state = SimpleNamespace(visual=visual, valid=valid, labels=labels)
    assert text_after_image(state)[0].nonzero()[:, 0].tolist() == [4, 6]
