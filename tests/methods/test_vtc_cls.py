import pytest
import torch

import foveate
from foveate.errors import InvalidParameter
from foveate.methods.tokens.fastervlm import FasterVLM
from foveate.methods.tokens.vtc_cls import VTCCLS
from foveate.signals import VisionAttention
from tests.families import zoo


def kept(model, method, batch):
    with foveate.attach(model, method) as att, torch.no_grad():
        model(**batch)
    return [k.tolist() for k in att.report.kept]


def test_one_layer_is_fastervlm():
    model, batch = zoo.model("llava"), zoo.batch("llava", [zoo.sample("llava", "image")])
    one = kept(model, VTCCLS(keep=5, layer=-2), batch)
    assert one == kept(model, FasterVLM(keep=5), batch)


def test_the_last_layer_has_no_say():
    model, batch = zoo.model("llava"), zoo.batch("llava", [zoo.sample("llava", "image")])
    before = kept(model, VTCCLS(keep=5), batch)
    query = model.model.vision_tower.encoder.layers[-1].self_attn.q_proj.weight
    saved = query.detach().clone()
    with torch.no_grad():
        query.copy_(-3 * saved)
    try:
        assert kept(model, VTCCLS(keep=5), batch) == before
    finally:
        with torch.no_grad():
            query.copy_(saved)


def test_the_score_is_the_sum_of_the_layers():
    attention = torch.rand(2, 7, 3, 16, generator=torch.Generator().manual_seed(0))
    total = sum(attention[:, i].mean(1) for i in range(7))
    torch.testing.assert_close(VTCCLS().score(attention), total)
    torch.testing.assert_close(
        VTCCLS(reduce_layers="max").score(attention), attention.mean(2).amax(1)
    )


def test_the_default_slice_is_layers_16_to_22_of_24():
    (need,) = VTCCLS().needs
    assert need == VisionAttention(layer=(-8, -1))
    assert list(range(24)[slice(*need.layer)]) == list(range(16, 23))


def test_unknown_reductions_are_refused():
    with pytest.raises(InvalidParameter, match="'sum', 'mean', 'max' or 'min'"):
        VTCCLS(reduce_layers="median")
