"""Recorded signals equal what the model's own eager attention and hidden states say."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import foveate
from foveate.engine.anatomy import anatomy
from foveate.families.base import resolve_path
from foveate.method import Method
from foveate.methods.tokens.base import TokensMethod
from foveate.parts import LayersPart
from foveate.signals import (
    ClassState,
    DecoderAttention,
    DecoderKeys,
    DecoderTransition,
    Need,
    ProjectorInput,
    TextEmbeddings,
    VisionAttention,
    VisionKeys,
    VisionStates,
)
from tests.families import zoo

WITH_ATTENTION = [n for n in zoo.FAMILIES if n != "fast_vlm"]


@dataclass(frozen=True, kw_only=True)
class Spy(TokensMethod):
    """Keeps all tokens but one, and what it was shown."""

    slug = "spy"
    keep: float = 0.9
    asks: tuple[Need, ...] = ()
    shown: tuple[list, ...] = ([],)

    @property
    def needs(self) -> tuple[Need, ...]:
        return self.asks

    def count(self, grid) -> int:
        return grid.n - 1

    def select(self, tokens, signals, keep) -> Tensor:
        self.shown[0].append((tokens, {n: signals[n] for n in self.asks}, signals))
        return torch.arange(keep).expand(tokens.features.shape[0], -1)


def shown(name: str, modality: str, *asks: Need, i: int = 0):
    """(tokens, signals by need, Signals) of one item."""
    model, seen = zoo.model(name), []
    batch = zoo.batch(name, [zoo.sample(name, modality, i)])
    with foveate.attach(model, Spy(asks=asks, shown=(seen,))), torch.no_grad():
        model(**batch)
    return model, batch, seen[0]


def eager_maps(model, name: str, modality: str, batch, layer=None, logits=False) -> list[Tensor]:
    """Attention maps of a block, by default the one that feeds the projector, as eager computes."""
    from transformers import AttentionInterface

    a = anatomy(model)
    _, block = a.vision_block(modality, layer)
    attention = resolve_path(block, a.family.attention)
    maps = []

    def full(module, query, key, value, attention_mask=None, **kwargs):
        if module is attention:
            products = query.double() @ key.double().transpose(-1, -2) * kwargs["scaling"]
            if attention_mask is not None:
                hidden = (
                    ~attention_mask if attention_mask.dtype == torch.bool else attention_mask < -1
                )
                products = products.masked_fill(hidden, float("-inf"))
            maps.append((products if logits else products.softmax(-1)).float())
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    AttentionInterface.register("map_sdpa", full)
    own = attention.config
    attention.config = type(own).from_dict(own.to_dict())
    attention.config._attn_implementation = "map_sdpa"
    try:
        with torch.no_grad():
            model(**batch)
    finally:
        attention.config = own
    return maps


@pytest.mark.parametrize("name,modality", [c for c in zoo.CASES if c[0] in WITH_ATTENTION])
@pytest.mark.parametrize("rows", ["auto", "received"])
def test_vision_attention_equals_the_full_map(name, modality, rows):
    need = VisionAttention(rows=rows)
    model, batch, (tokens, values, _) = shown(name, modality, need)
    a = anatomy(model)
    parts = []
    for full in eager_maps(model, name, modality, batch):
        classed = a.family.class_token
        if classed and rows == "auto":
            seen = full[:, :, 0, 1:]
        else:
            seen = full.mean(2)[..., 1:] if classed else full.mean(2)
        parts.append(seen.transpose(1, 2).flatten(0, 1))
    expected = pooled(model, modality, batch, torch.cat(parts)).T
    assert values[need].shape == (1, expected.shape[0], tokens.n)
    assert torch.allclose(values[need][0], expected, atol=1e-5)
    special = tokens.special[0]
    assert (values[need][0][:, special] == 0).all()


def pooled(model, modality: str, batch, per_row: Tensor) -> Tensor:
    """Values (N, ...) of the first item's tokens from those of all tower rows."""
    a = anatomy(model)
    features, inputs = zoo.feature_call(model, modality, batch)
    order = a.family.tower_order(a.config, modality, inputs)
    per_row = per_row if order is None else per_row[order]
    with torch.no_grad():
        output = features(**inputs, return_dict=True)
    layout, row = a.family.layouts(a.config, modality, inputs, output)[0]
    return layout.pool(per_row[row:])


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_vl", "internvl"])
def test_a_slice_of_blocks_stacks_what_each_shows(name):
    whole, single = VisionAttention(layer=(-3, -1)), [VisionAttention(layer=i) for i in (0, 1)]
    _, _, (_, values, _) = shown(name, "image", whole, *single)
    assert torch.equal(values[whole], torch.stack([values[n] for n in single], 1))


def test_a_slice_without_blocks_is_refused():
    with pytest.raises(foveate.UnsupportedModel, match=r"\(16, -1\) .* 3 blocks"):
        shown("llava", "image", VisionAttention(layer=(16, -1)))


@pytest.mark.parametrize("name", ["llava", "llava_next", "paligemma", "internvl", "gemma3"])
@pytest.mark.parametrize("layer", [-1, 1])
def test_logits_and_mutual_attention_equal_the_full_map(name, layer):
    logits, mutual = VisionAttention(layer=layer, logits=True), VisionAttention("mutual", layer)
    model, batch, (_, values, _) = shown(name, "image", logits, mutual)
    classed = anatomy(model).family.class_token
    rows, sums = [], []
    for full in eager_maps(model, name, "image", batch, layer, logits=True):
        seen = full[:, :, 0, 1:] if classed else full.mean(2)
        rows.append(seen.transpose(1, 2).flatten(0, 1))
        patches = full.softmax(-1)[:, :, int(classed) :, int(classed) :]
        both = torch.stack([patches.sum(2), patches.sum(3)], 1)
        sums.append(both.movedim(-1, 1).flatten(0, 1))
    expected = pooled(model, "image", batch, torch.cat(rows)).T
    assert torch.allclose(values[logits][0], expected, atol=1e-4)
    expected = pooled(model, "image", batch, torch.cat(sums)).movedim(0, -1)
    assert torch.allclose(values[mutual][0], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_5_vl", "internvl", "gemma3"])
def test_keys_and_states_equal_the_modules_own(name):
    model, batch, (tokens, values, _) = shown(name, "image", VisionKeys(), VisionStates())
    a = anatomy(model)
    _, block = a.vision_block("image", None)
    attention = resolve_path(block, a.family.attention)
    caught: dict[str, Tensor] = {}
    hooks = [
        resolve_path(attention, a.family.key).register_forward_hook(
            lambda _, x, out: caught.__setitem__("keys", out)
        ),
        block.register_forward_hook(lambda _, x, out: caught.__setitem__("states", out)),
    ]
    with torch.no_grad():
        model(**batch)
    for hook in hooks:
        hook.remove()
    keys, states = caught["keys"], caught["states"]
    if a.family.key == "qkv":
        keys = keys.chunk(3, -1)[1]
    strip = slice(1, None) if a.family.class_token else slice(None)
    keys, states = (
        (x[:, strip] if x.dim() == 3 else x).reshape(-1, x.shape[-1]) for x in (keys, states)
    )
    order = a.family.tower_order(a.config, "image", batch)
    if order is not None:
        keys, states = keys[order], states[order]
    inputs = dict(batch)
    with torch.no_grad():
        import inspect

        names = inspect.signature(model.model.get_image_features).parameters
        output = model.model.get_image_features(
            **{n: inputs[n] for n in names if n in inputs}, return_dict=True
        )
    layout, row = a.family.layouts(a.config, "image", inputs, output)[0]
    got = values[VisionKeys()]
    assert torch.allclose(got[0].transpose(0, 1).flatten(1), layout.pool(keys[row:]), atol=1e-5)
    assert torch.allclose(values[VisionStates()][0], layout.pool(states[row:]), atol=1e-5)


@pytest.mark.parametrize("name", ["llava", "llava_next", "video_llava", "paligemma"])
def test_projector_input_projects_to_the_features(name):
    model, _, (tokens, values, signals) = shown(name, "image", ProjectorInput(), ClassState())
    patch = tokens.patch[0]
    with torch.no_grad():
        again = signals.project(values[ProjectorInput()][0][patch])
    assert torch.allclose(again, tokens.features[0][patch], atol=1e-5)
    classes = values[ClassState()]
    if name == "paligemma":
        assert classes is None
    else:
        assert classes.shape[1] == len(tokens.grid.views)
        assert classes.shape[2] == values[ProjectorInput()].shape[2]


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3", "idefics3"])
def test_projectors_that_pool_leave_projected_features(name):
    _, _, (tokens, values, signals) = shown(name, "image", ProjectorInput(), ClassState())
    assert values[ProjectorInput()] is tokens.features
    assert values[ClassState()] is None
    assert signals.project(tokens.features) is tokens.features


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_text_embeddings_are_those_of_the_items_own_row(name):
    model, seen = zoo.model(name), []
    samples = [zoo.sample(name, "image", i) for i in (0, 1)]
    with foveate.attach(model, Spy(asks=(TextEmbeddings(),), shown=(seen,))), torch.no_grad():
        model(**zoo.batch(name, samples))
    for sample, (_, values, _) in zip(samples, seen, strict=True):
        text = torch.tensor([i for i in sample.ids if i not in (zoo.IMAGE, zoo.VIDEO)])
        with torch.no_grad():
            expected = model.get_input_embeddings()(text)
        assert torch.allclose(values[TextEmbeddings()][0], expected)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "internvl"])
def test_paired_text_ends_where_the_next_item_begins(name):
    model, seen = zoo.model(name), []
    both = zoo.joined(name, zoo.sample(name, "image", 0), zoo.sample(name, "image", 1))
    need = TextEmbeddings(paired=True)
    with foveate.attach(model, Spy(asks=(need,), shown=(seen,))), torch.no_grad():
        model(**zoo.batch(name, [both]))
    ids = torch.tensor(both.ids)
    text = (ids != zoo.IMAGE).long()
    starts = ((text.diff(prepend=text[:1]) == 1).nonzero()[:, 0]).tolist()
    ends = [s + int(text[s:].cumprod(0).sum()) for s in starts]
    for run, (_, values, _) in ((0, seen[0]), (-1, seen[-1])):
        with torch.no_grad():
            expected = model.get_input_embeddings()(ids[starts[run] : ends[run]])
        assert torch.allclose(values[need][0], expected)


@dataclass(frozen=True, kw_only=True)
class LayerSpy(Method, LayersPart):
    """Keeps everything; notes attention by the next layer's own projections and by the tap."""

    slug = "layer_spy"
    k: int = 2
    shown: tuple[list, ...] = ([],)

    @property
    def needs(self):
        return (DecoderAttention(layer=self.k), DecoderAttention(layer=self.k - 1))

    def boundaries(self, layers):
        return (self.k, self.k + 1)

    def at_boundary(self, k, layers, state):
        if k == self.k:
            self.shown[0].append(state.attention(state.last[:, None])[:, :, 0])
        else:
            self.shown[0].append(state.signals[DecoderAttention(layer=self.k)])


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_next_layers_attention_equals_what_that_layer_then_does(name):
    """The projected rows of layer k and the tapped rows of layer k are the same numbers."""
    model, seen = zoo.model(name), []
    samples = [zoo.sample(name, "image", i) for i in (0, 1)]
    with foveate.attach(model, LayerSpy(shown=(seen,))), torch.no_grad():
        model(**zoo.batch(name, samples))
    ahead, behind = seen
    assert ahead.shape == behind.shape and ahead.shape[1] == 4
    assert torch.allclose(ahead, behind, atol=1e-5)
    assert torch.allclose(ahead.sum(-1), torch.ones(ahead.shape[:2]), atol=1e-5)


@dataclass(frozen=True, kw_only=True)
class KeySpy(Method, LayersPart):
    """Halves the visual tokens in layer 1; notes keys of layers before and behind, and the norm."""

    slug = "key_spy"
    needs = (DecoderKeys(0), DecoderKeys(2), DecoderAttention(2))
    shown: tuple[list, ...] = ([],)

    def boundaries(self, layers):
        return (1, 3)

    def at_boundary(self, k, layers, state):
        if k == 1:
            self.shown[0].append(state.signals[DecoderKeys(0)])
            return ~state.visual | (state.visual.cumsum(1) % 2 == 0)
        seen = state.signals
        self.shown[0].extend([seen[DecoderKeys(2)], seen[DecoderAttention(2)], state])


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "paligemma", "glm4v"])
def test_decoder_keys_are_those_of_the_cache(name):
    model, seen = zoo.model(name), []
    samples = [zoo.sample(name, "image", i) for i in (0, 1)]
    inputs = zoo.batch(name, samples)
    if name not in zoo.MROPE_FAMILIES:
        # Without them the model counts padding, and rows are shown the keys of the row alone.
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with foveate.attach(model, KeySpy(shown=(seen,))), torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    first, later, attention, state = seen
    for keys, layer in ((first, 0), (later, 2)):
        # A sliding layer holds the end of what it saw.
        held = cache.layers[layer].keys
        assert torch.equal(keys[:, :, -held.shape[2] :], held)
    assert attention.shape[2] == later.shape[2] == state.hidden.shape[1] < first.shape[2]
    assert torch.equal(state.norm(state.hidden), anatomy(model).text.norm(state.hidden))


@dataclass(frozen=True, kw_only=True)
class TransitionSpy(Method, LayersPart):
    """Halves the visual tokens in layer 2; notes what layer 1 did, before and behind."""

    slug = "transition_spy"
    shown: tuple[list, ...] = ([],)

    def needs_in(self, layers):
        return (DecoderTransition(1),)

    def boundaries(self, layers):
        return (2, 3)

    def at_boundary(self, k, layers, state):
        keep = ~state.visual | (state.visual.cumsum(1) % 2 == 0)
        self.shown[0].append((state.signals[DecoderTransition(1)], keep))
        return keep if k == 2 else None


@pytest.mark.parametrize("name", ["llava", "qwen3_vl", "gemma3", "glm4v"])
def test_transitions_are_those_between_norms_and_projections(name):
    model, seen, states = zoo.model(name), [], {}
    layer = anatomy(model).layers[1]
    mlp_norm = getattr(layer, "pre_feedforward_layernorm", None) or layer.post_attention_layernorm
    modules = (layer.input_layernorm, layer.self_attn.o_proj, mlp_norm, layer.mlp.down_proj)
    handles = [
        module.register_forward_hook(lambda m, args, out, i=i: states.setdefault(i, out))
        for i, module in enumerate(modules)
    ]
    try:
        with foveate.attach(model, TransitionSpy(shown=(seen,))), torch.no_grad():
            model(**zoo.batch(name, [zoo.sample(name, "image")]))
    finally:
        for handle in handles:
            handle.remove()
    (found, keep), (later, _) = seen
    for part in (0, 1):
        before, after = states[2 * part], states[2 * part + 1]
        ratio = after.norm(dim=-1) / before.norm(dim=-1)
        cosine = (after * before).sum(-1) / (after.norm(dim=-1) * before.norm(dim=-1))
        assert torch.allclose(found[:, part], torch.stack([ratio, cosine], -1), atol=1e-5)
    assert torch.equal(later, found[:, :, keep[0]])
    assert not layer.mlp._forward_hooks


def test_convolutional_towers_say_what_to_use_instead():
    model = zoo.model("fast_vlm")
    batch = zoo.batch("fast_vlm", [zoo.sample("fast_vlm", "image")])
    with foveate.attach(model, foveate.FasterVLM()), torch.no_grad():
        with pytest.raises(foveate.UnsupportedModel, match="DivPrune"):
            model(**batch)
    with foveate.attach(model, foveate.DivPrune(keep=0.5)) as att, torch.no_grad():
        model(**batch)
    assert att.report.tokens_out == [8]


def test_a_tap_restores_the_config_also_after_an_error():
    model = zoo.model("llava")
    block = anatomy(model).vision_block("image", None)[1]
    own = block.self_attn.config
    batch = zoo.batch("llava", [zoo.sample("llava", "image")])
    bad = {**batch, "pixel_values": batch["pixel_values"][:, :2]}
    with foveate.attach(model, foveate.FasterVLM()), torch.no_grad():
        with pytest.raises(RuntimeError):
            model(**bad)
        assert block.self_attn.config is own
        model(**batch)
    assert block.self_attn.config is own
