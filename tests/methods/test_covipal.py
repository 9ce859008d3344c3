"""CoViPAL: what its module may depend on, exact budgets, and both stages of its training."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import foveate
from foveate.errors import InvalidParameter
from foveate.methods.layers.covipal import MODULES, CoViPAL, scores
from foveate.ops.attention import Heads
from foveate.parts import BoundaryState, Widths
from foveate.signals import Signals
from foveate.trained import lent, untrained
from foveate.training.recipes.covipal import attention_target
from tests.families import zoo

LAYERS = 5


def inputs():
    return zoo.batch("llava", [zoo.sample("llava", "image", i) for i in range(2)])


def made(**parameters):
    return CoViPAL(weights="random", inner=16, heads=2, **parameters)


@pytest.mark.parametrize("ppm", MODULES)
def test_the_module_sees_text_no_padding_and_no_order(ppm):
    torch.manual_seed(0)
    module = MODULES[ppm](12, 16, 2, 4)
    visual, text = torch.randn(2, 7, 12), torch.randn(2, 4, 12)
    mask, real = torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 7, dtype=torch.bool)
    score = module(visual, text, mask, real)
    turned = torch.randperm(7)
    assert torch.allclose(module(visual[:, turned], text, mask, real), score[:, turned], atol=1e-5)
    assert not torch.allclose(module(visual, text.flip(0), mask, real), score, atol=1e-3)
    padded = [torch.cat([x, torch.randn(2, 3, 12)], 1) for x in (visual, text)]
    more = [torch.cat([x, torch.zeros(2, 3, dtype=torch.bool)], 1) for x in (mask, real)]
    assert torch.allclose(module(*padded, *more)[:, :7], score, atol=1e-5)


def test_only_the_mixer_lets_visual_tokens_see_each_other():
    visual, text = torch.randn(1, 7, 12), torch.randn(1, 4, 12)
    mask, real = torch.ones(1, 4, dtype=torch.bool), torch.ones(1, 7, dtype=torch.bool)
    other = torch.cat([visual[:, :1], torch.randn(1, 6, 12)], 1)
    for ppm, sees in (("cross", False), ("mixer", True)):
        torch.manual_seed(0)
        module = MODULES[ppm](12, 16, 2, 4)
        a, b = (module(x, text, mask, real)[:, 0] for x in (visual, other))
        assert torch.allclose(a, b, atol=1e-6) is not sees


def test_a_prompt_of_pictures_only_gets_scores():
    state = {"valid": torch.ones(1, 5, dtype=torch.bool), "visual": torch.ones(1, 5).bool()}
    for ppm, module in MODULES.items():
        made = module(12, 16, 2, 4)
        given = SimpleNamespace(hidden=torch.randn(1, 5, 12), labels=None, **state)
        assert scores(made, given).isfinite().all(), ppm


@pytest.mark.parametrize("ppm", MODULES)
def test_cost_counts_the_matrices_of_the_module(ppm):
    """Those that are multiplied once per visual token."""
    method = CoViPAL(weights="random", ppm=ppm, inner=16, blocks=3, heads=2)
    other = ("text", "key_value", "type_embedding", "out.1")
    (module,) = method.build(32, LAYERS)
    numbers = sum(
        p.numel()
        for name, p in module.named_parameters()
        if p.dim() == 2 and not any(word in name for word in other)
    )
    widths = Widths(tower=0, head=0, blocks=0, model=32, keys=32)
    assert method.cost(10, 5, widths) == 2 * 10 * numbers


@pytest.mark.parametrize(("keep", "left"), [(0.25, 4), (0.3, 4), (5, 5), (0.01, 1)])
def test_int_of_r_n_tokens_stay_from_layer_0_on(keep, left):
    model = zoo.model("llava")
    with foveate.attach(model, made(keep=keep)) as att, torch.no_grad():
        model(**inputs())
    assert att.report.tokens_in == [16, 16]
    assert att.report.tokens_by_layer == [[left] * LAYERS] * 2


def test_several_boundaries_hold_the_mean_together():
    model = zoo.model("llava")
    with foveate.attach(model, made(keep=0.5, boundary=(0, 2))) as att, torch.no_grad():
        model(**inputs())
    first, *_, last = att.report.tokens_by_layer[0]
    assert first > 8 > last and first * 2 + last * 3 == pytest.approx(8 * LAYERS, abs=3)


@pytest.mark.parametrize("k", [0, 2])
def test_a_hard_choice_is_where_soft_ones_end(k):
    """Weighing keys and dropping columns give the same answers, positions being kept."""
    model, batch = zoo.model("llava"), inputs()
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, -2:] = batch["input_ids"][:, -2:]
    method = made(keep=0.5, boundary=(k,), temperature=1e-5, eps=1e-30)
    module = untrained(method, 0, width=32, layers=LAYERS)
    for part in module:
        part.out[1].weight.data *= 50
    with lent("covipal", module), foveate.attach(model, method), torch.no_grad():
        soft = model(**batch, labels=labels, use_cache=False)
        module.eval()
        hard = model(**batch, labels=labels, use_cache=False)
    assert soft.logits.shape[1] > hard.logits.shape[1]
    assert torch.allclose(soft.logits[:, -3:], hard.logits[:, -3:], atol=1e-3)
    assert torch.allclose(soft.loss, hard.loss, atol=1e-3)


def test_answers_teach_the_module_and_nothing_else():
    model, batch = zoo.model("llava"), inputs()
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, -2:] = batch["input_ids"][:, -2:]
    module = untrained(made(), 0, width=32, layers=LAYERS)
    model.requires_grad_(False)
    try:
        with lent("covipal", module), foveate.attach(model, made(keep=0.5, temperature=0.5)):
            model(**batch, labels=labels, use_cache=False).loss.backward()
    finally:
        model.requires_grad_(True)
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    assert len(grads) > 10 and all(g.isfinite().all() for g in grads)
    assert all(p.grad is None for p in model.parameters())


def test_guidance_of_an_even_causal_map():
    n, visual = 6, torch.tensor([[0, 1, 1, 1, 0, 0]]).bool()
    heads = Heads(
        torch.zeros(1, 2, n, 3), torch.zeros(1, 2, n, 3), 1.0, torch.ones(1, n, dtype=torch.bool)
    )
    # Row j gives 1 / (j + 1) to each of its columns; two heads.
    last = 2 * (1 / 4 + 1 / 5 + 1 / 6)
    found = attention_target(heads, visual, "last_nv", "raw")[0]
    assert torch.allclose(found[1:4], torch.full((3,), last))
    whole = attention_target(heads, visual, "from_visual", "raw")[0]
    assert torch.allclose(whole[1], torch.tensor(last + 2 * (1 / 2 + 1 / 3)))
    text = attention_target(heads, visual, "text", "mean")[0]
    assert torch.allclose(text[1], torch.tensor((1 / 5 + 1 / 6) / 2))
    even = attention_target(heads, visual, "text", "standard")[0]
    assert even[1:4].abs().max() < 1e-2, "what is alike stays alike"


@pytest.mark.parametrize(
    "wrong", [{"boundary": ()}, {"boundary": (2, 1)}, {"boundary": (-1,)}, {"heads": 3}]
)
def test_what_makes_no_module_is_refused(wrong):
    with pytest.raises(InvalidParameter):
        CoViPAL(**wrong)
    with pytest.raises(InvalidParameter, match="ppm='mixr' .* 'cross' or 'mixer'"):
        CoViPAL(ppm="mixr")
    with pytest.raises(InvalidParameter, match="up to 4"):
        replace(made(), boundary=(5,)).boundaries(LAYERS)


@pytest.mark.parametrize("ppm", MODULES)
def test_answers_in_training_are_hidden_from_the_module(ppm):
    """What is asked changes scores; answers, and text behind the first of them, don't."""
    torch.manual_seed(0)
    module = MODULES[ppm](12, 16, 2, 4)
    item = torch.tensor([[-1, 0, 0, 0, -1, -1, -1, -1]])
    labels = torch.tensor([[-100] * 5 + [7, -100, 8]])
    hidden = torch.randn(1, 8, 12)

    def score(changed=None, labels=labels):
        x = hidden.clone()
        if changed is not None:
            x[:, changed] = 5.0
        state = BoundaryState(
            hidden=x,
            valid=torch.ones(1, 8, dtype=torch.bool),
            visual=item >= 0,
            item=item,
            entered=torch.tensor([3]),
            last=torch.tensor([7]),
            labels=labels,
            attention=None,
            signals=Signals({}),
        )
        return scores(module, state)[0, 1:4]

    assert all(torch.allclose(score(i), score(), atol=1e-6) for i in (5, 6, 7))
    assert not torch.allclose(score(4), score(), atol=1e-3)
    assert not torch.allclose(score(5, labels=None), score(labels=None), atol=1e-3)
