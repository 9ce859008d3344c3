"""The layer that the projector reads, named by the config or by one call: methods follow both."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
import transformers as hf

import foveate
from foveate.errors import UnsupportedCall

from . import zoo
from .running import assert_equal, assert_unequal, generate

READERS = [
    foveate.VisionZip(keep=8),
    foveate.FasterVLM(keep=8),
    foveate.VisPruner(keep=8),
    foveate.ToMe(keep=8),
]
CASES = [("llava", m) for m in READERS]
CASES += [("llava_next", READERS[0]), ("llava_next", READERS[3]), ("internvl", READERS[1])]


@contextmanager
def configured(model, **values):
    """A model whose config says so, while open."""
    before = {name: getattr(model.config, name) for name in values}
    try:
        for name, value in values.items():
            setattr(model.config, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(model.config, name, value)


def prompt(name: str, *numbers: int, more: int = 0):
    """Arguments for samples; `more` placeholders in front of those of each."""
    samples = [zoo.sample(name, "image", i) for i in numbers or (0,)]
    grown = []
    for s in samples:
        first = s.ids.index(zoo.IMAGE)
        ids = [*s.ids[:first], *[zoo.IMAGE] * more, *s.ids[first:]]
        grown.append(zoo.Sample(ids, s.types, s.inputs, s.items))
    return zoo.batch(name, grown)


@pytest.mark.parametrize(("name", "method"), CASES, ids=repr)
def test_a_call_that_names_a_layer_equals_a_config_that_does(name, method):
    model, inputs = zoo.model(name), prompt(name)
    with foveate.attach(model, method), torch.no_grad():
        plain = generate(model, inputs, 4)
        for layer in (1, -3):
            called = generate(model, inputs, 4, vision_feature_layer=layer)
            logits = model(**inputs, vision_feature_layer=layer).logits
            with configured(model, vision_feature_layer=layer):
                expected = generate(model, inputs, 4)
                whole = model(**inputs).logits
            assert_equal(called.row(0), expected.row(0))
            assert torch.equal(logits, whole)
            assert_unequal(called.row(0), plain.row(0))


@pytest.mark.parametrize("layer", [1, 2, -1, -3, [-1]])
def test_scores_are_read_where_the_call_says(layer):
    model = zoo.model("llava", "eager")
    try:
        inputs = prompt("llava")
        with torch.no_grad():
            tower = model.model.vision_tower(inputs["pixel_values"], output_attentions=True)
        block = {1: 0, 2: 1, -1: 2, -3: 0}[layer if isinstance(layer, int) else layer[0]]
        scores = tower.attentions[block].mean(1)[0, 0, 1:]
        with foveate.attach(model, foveate.FasterVLM(keep=5)) as attachment, torch.no_grad():
            model(**inputs, vision_feature_layer=layer)
            kept = attachment.report.kept[0]
        assert kept.tolist() == sorted(scores.topk(5).indices.tolist())
    finally:
        zoo.model("llava")


@pytest.mark.parametrize("method", [m.__class__(keep=1.0) for m in READERS], ids=repr)
@pytest.mark.parametrize("layer", [1, -1, -3, [-2]])
def test_keeping_all_is_the_bare_model(layer, method):
    model, inputs = zoo.model("llava"), prompt("llava", 0, 1)
    bare = generate(model, inputs, 4, vision_feature_layer=layer)
    with foveate.attach(model, method):
        whole = generate(model, inputs, 4, vision_feature_layer=layer)
    assert torch.equal(bare.logits, whole.logits)


def several(layers: list[int]):
    """A LLaVA whose projector reads several layers of the tower side by side."""
    torch.manual_seed(0)
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**zoo.TOWER),
        text_config=hf.LlamaConfig(**zoo.TEXT),
        image_token_id=zoo.IMAGE,
        vision_feature_layer=layers,
    )
    return zoo.redrawn(hf.LlavaForConditionalGeneration(config).eval(), embedding_std=1.0)


def test_of_several_layers_the_deepest_is_the_one_that_is_read():
    model, inputs = several([-1, 1]), prompt("llava", 0, 1)
    bare = generate(model, inputs, 4)
    for method in (foveate.DivPrune(keep=1.0), foveate.VisionZip(keep=1.0)):
        with foveate.attach(model, method):
            assert torch.equal(generate(model, inputs, 4).logits, bare.logits)
    kept = []
    for layers in ([-1, 1], [1, -1], [2, -1]):
        with foveate.attach(model, foveate.FasterVLM(keep=8)) as attachment:
            generate(model, inputs, 2, vision_feature_layer=layers)
            kept.append([k.tolist() for k in attachment.report.kept])
    single = zoo.model("llava")
    single.model.vision_tower, own = model.model.vision_tower, single.model.vision_tower
    try:
        with foveate.attach(single, foveate.FasterVLM(keep=8)) as attachment:
            generate(single, inputs, 2, vision_feature_layer=-1)
            expected = [k.tolist() for k in attachment.report.kept]
    finally:
        single.model.vision_tower = own
    assert kept == [expected] * 3


@pytest.mark.parametrize("method", READERS, ids=repr)
def test_rows_of_several_layers_are_those_of_each_alone(method):
    model = several([1, -1])
    with foveate.attach(model, method):
        both = generate(model, prompt("llava", 0, 1), 4)
        for i in (0, 1):
            assert_equal(both.row(i), generate(model, prompt("llava", i), 4).row(0))


@pytest.mark.parametrize("method", READERS, ids=repr)
def test_a_class_token_among_the_features_moves_no_patch(method):
    """Of two pictures the second one's patches lie a row further, by the first one's class row."""
    model = zoo.model("llava")
    full = {"vision_feature_select_strategy": "full"}
    with foveate.attach(model, method):
        both = generate(model, prompt("llava", 0, 1, more=1), 4, **full)
        for i in (0, 1):
            alone = generate(model, prompt("llava", i, more=1), 4, **full)
            assert_equal(both.row(i), alone.row(0))


@pytest.mark.parametrize("layer", [9, -9, [], [1, 9], "last", 1.5, torch.tensor(-1)])
def test_no_layer_of_the_tower(layer):
    model, inputs = zoo.model("llava"), prompt("llava")
    with foveate.attach(model, foveate.DivPrune(keep=4)):
        with pytest.raises(UnsupportedCall, match="has 3 blocks"):
            model(**inputs, vision_feature_layer=layer)


@pytest.mark.parametrize("method", [READERS[1], READERS[3]], ids=repr)
def test_what_enters_the_tower_has_no_scores(method):
    model, inputs = zoo.model("llava"), prompt("llava")
    with foveate.attach(model, method), pytest.raises(UnsupportedCall, match="later layer"):
        model(**inputs, vision_feature_layer=-4)
