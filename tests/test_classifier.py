"""Zero-shot streams: the bare model where nothing is to do, shorter towers, state, refusals."""

import pytest
import torch
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

import foveate
from foveate.errors import InvalidParameter, UnsupportedCall, UnsupportedModel
from foveate.flops import VisionShape, vision_flops

CLASSES = ["red", "green", "blue"]
WIDTH, BLOCKS, SIDE = 16, 4, 8


class Words:
    """A processor of texts: a class is its number, a template its length."""

    def __call__(self, text, padding, return_tensors):
        ids = [[1, 3 + CLASSES.index(t.split()[-1]), 4 + len(t.split()), 2] for t in text]
        from transformers import BatchFeature

        return BatchFeature({"input_ids": torch.tensor(ids)})


def model_of(kind):
    sizes = {"hidden_size": WIDTH, "intermediate_size": 32, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 20, "num_hidden_layers": 1, "max_position_embeddings": 4}
    text |= {"bos_token_id": 1, "pad_token_id": 0}
    vision = {**sizes, "num_hidden_layers": BLOCKS, "image_size": 4 * SIDE, "patch_size": 4}
    torch.manual_seed(0)
    if kind == "clip":
        text["eos_token_id"] = 10
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))
    else:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    with torch.no_grad():
        for p in model.vision_model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model.eval()


@pytest.fixture(scope="module", params=["clip", "siglip"])
def model(request):
    return model_of(request.param)


def stream_of(model, method=None, **more):
    return foveate.zero_shot(model, Words(), CLASSES, method, templates=["a {}", "the {}"], **more)


def pictures(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 3, 4 * SIDE, 4 * SIDE, generator=g)


def plain(model, stream, pixels):
    with torch.no_grad():
        feature = normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)[0]
    logits = feature @ stream.prototypes.T * model.logit_scale.exp()
    return (logits + getattr(model, "logit_bias", 0)).detach()


def test_without_condensing_and_state_it_is_the_model(model):
    bare, adapted = stream_of(model), stream_of(model, foveate.TCA(delta=0.0))
    off = stream_of(model, foveate.TCA(delta=0.0, reservoir_size=0))
    for i, pixels in enumerate(pictures(4)):
        expected = plain(model, bare, pixels)
        for stream in (bare, off):
            said = stream(pixels)
            torch.testing.assert_close(said.logits, expected)
            assert said.flops == said.flops_full and len(set(said.tokens)) == 1
        said = adapted(pixels)
        if i == 0:
            torch.testing.assert_close(said.plain, expected)
        assert (said.logits >= said.plain).all() and (said.logits > said.plain).any()


def test_prototypes_are_means_over_templates(model):
    stream = stream_of(model)
    one = foveate.zero_shot(model, Words(), CLASSES, templates=["a {}"]).prototypes
    other = foveate.zero_shot(model, Words(), CLASSES, templates=["the {}"]).prototypes
    torch.testing.assert_close(stream.prototypes, normalize((one + other) / 2, dim=-1))


def test_the_tower_really_runs_shorter(model):
    stream = stream_of(model, foveate.TCA(keep=0.25, gate="class"))
    patches, first = SIDE * SIDE, int(stream.dual.class_token)
    shape = VisionShape.from_config(model.config)
    for pixels in pictures(8):
        said = stream(pixels)
        assert said.tokens[:2] == (patches + first,) * 2
        assert patches > said.tokens[2] > said.tokens[3] > said.tokens[4] == patches // 4 + first
        assert vision_flops(shape, said.tokens[:-1], patches=patches) < said.flops < said.flops_full
    assert stream.adapter.anchors is not None


def test_anchors_add_a_key_and_no_token(model):
    """With anchors: what a block gives equals attention over one key more."""
    method = foveate.TCA(delta=0.0, lam=0.0, gate="class")
    stream = stream_of(model, method)
    images = list(pictures(6))
    for pixels in images:
        stream(pixels)
    bank = stream.adapter.anchors
    found = stream(images[0])
    layers = model.vision_model.encoder.layers

    def by_hand(pixels):
        vision = model.vision_model
        x = vision.embeddings(pixels)
        x = vision.pre_layrnorm(x) if stream.dual.class_token else x
        for i, layer in enumerate(layers):
            n = x.shape[1]
            y = x
            if i in method.layers(BLOCKS):
                own = x[0, 0] if stream.dual.class_token else x[0].mean(0)
                best = torch.cosine_similarity(bank[:, i - 1], own[None]).argmax()
                y = torch.cat([x, bank[best, i - 1][None, None]], 1)
            x = x + layer.self_attn(layer.layer_norm1(y))[0][:, :n]
            x = x + layer.mlp(layer.layer_norm2(x))
        if stream.dual.class_token:
            return model.visual_projection(vision.post_layernorm(x[:, 0]))
        return vision.head(vision.post_layernorm(x))

    with torch.no_grad():
        feature = normalize(by_hand(images[0]), dim=-1)[0]
    expected = feature @ stream.prototypes.T * model.logit_scale.exp()
    expected = (expected + getattr(model, "logit_bias", 0)).detach()
    torch.testing.assert_close(found.plain, expected, atol=1e-4, rtol=1e-4)
    assert (found.plain - plain(model, stream, images[0])).abs().max() > 1e-4
    assert len(set(found.tokens)) == 1


def test_a_stream_goes_on_from_its_state(model):
    one, other = (stream_of(model, foveate.TCA(delta=0.1)) for _ in range(2))
    images = list(pictures(8))
    for pixels in images[:6]:
        one(pixels)
    other.load_state_dict(one.state_dict())
    for pixels in images[6:]:
        assert torch.equal(one(pixels).logits, other(pixels).logits)
    assert stream_of(model).state_dict() == {}
    with pytest.raises(InvalidParameter, match="no state"):
        stream_of(model).load_state_dict(one.state_dict())


def test_nothing_stays_on_the_model(model):
    stream = stream_of(model, foveate.TCA(delta=0.1))
    pixels = pictures(1)[0]
    before = plain(model, stream, pixels)
    with pytest.raises(RuntimeError):
        stream(torch.zeros(1, 5, 4 * SIDE, 4 * SIDE))
    stream(pixels)
    assert torch.equal(plain(model, stream, pixels), before)
    for layer in model.vision_model.encoder.layers:
        assert "forward" not in layer.__dict__ and not layer._forward_hooks


def test_other_methods_inside_the_tower_work_too(model):
    said = stream_of(model, foveate.ToMe(keep=0.5))(pictures(1)[0])
    assert said.tokens[-1] < said.tokens[0] and torch.equal(said.logits, said.plain)
    drawn = [
        stream_of(model, foveate.TCA(delta=0.1), generator=torch.Generator().manual_seed(s))(
            pictures(1)[0]
        ).plain
        for s in (0, 0)
    ]
    assert torch.equal(*drawn)


def test_what_can_not_be_is_refused(model):
    with pytest.raises(UnsupportedCall, match="TCA or ToMe"):
        stream_of(model, foveate.DivPrune(keep=4))
    with pytest.raises(UnsupportedCall, match="one image per call"):
        stream_of(model)(pictures(2)[:, 0])
    with pytest.raises(InvalidParameter, match="at least two"):
        foveate.zero_shot(model, Words(), ["red"])
    with pytest.raises(InvalidParameter, match="templates"):
        foveate.zero_shot(model, Words(), CLASSES, templates=["a photo"])
    with pytest.raises(UnsupportedModel, match="CLIPModel"):
        foveate.zero_shot(torch.nn.Linear(1, 1), Words(), CLASSES)
