"""Copies of an attached model come without the method, each with its own vision tower."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

import foveate
from foveate.errors import UnsupportedCall
from tests.engine.running import generate
from tests.families import zoo
from tests.families.halves import HalfAt


def averaged(model):
    return torch.optim.swa_utils.AveragedModel(model).module


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {
    "deepcopy": copy.deepcopy,
    "EMA": averaged,
    "torch.save": saved,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


# LLaVA, once it has run, holds hooks of transformers that can't be pickled, bare or not.
@pytest.mark.parametrize("name, way", [("llava", "deepcopy"), *(("qwen3_vl", way) for way in WAYS)])
def test_a_copy_is_bare(name, way):
    model = zoo.model(name)
    inputs = zoo.batch(name, [zoo.sample(name, "image", 0)])
    bare = generate(model, inputs, 3)
    method = foveate.FasterVLM(keep=0.5) if name == "llava" else foveate.DivPrune(keep=0.5)
    method = method + HalfAt(k=0) + foveate.VistaLLaMA()
    with foveate.attach(model, method) as attachment:
        short = generate(model, inputs, 3)
        twin = WAYS[way](model)
        assert torch.equal(generate(twin, inputs, 3)[1], bare[1])
        assert attachment.report
        assert torch.equal(generate(model, inputs, 3)[1], short[1])
    assert not any("_foveate" in m.__dict__ or m._forward_pre_hooks for m in twin.modules())
    with foveate.attach(twin, method):
        assert torch.equal(generate(twin, inputs, 3)[1], short[1])
    assert torch.equal(generate(model, inputs, 3)[1], bare[1])
    assert torch.equal(generate(WAYS[way](model), inputs, 3)[1], bare[1])


def test_a_copy_has_its_own_tower():
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    with foveate.attach(model, foveate.DivPrune(keep=0.5)):
        before = generate(model, inputs, 2)
        twin = copy.deepcopy(model)
        with torch.no_grad():
            for p in twin.model.vision_tower.parameters():
                p.mul_(2)
        assert torch.equal(generate(model, inputs, 2)[1], before[1])
    other = generate(twin, inputs, 2)
    assert not torch.equal(other[1], generate(model, inputs, 2)[1])


def test_a_layer_is_copied_bare_too():
    def hooks(layers):
        # The library leaves hooks of its own once hidden states were asked for.
        return [(list(la._forward_pre_hooks), list(la._forward_hooks)) for la in layers]

    model = zoo.model("llava")
    bare = hooks(model.get_decoder().layers)
    with foveate.attach(model, HalfAt(k=2)):
        assert hooks(model.get_decoder().layers) != bare
        layers = copy.deepcopy(model.get_decoder().layers)
    assert hooks(layers) == bare


def test_a_compiled_language_model():
    model = copy.deepcopy(zoo.model("llava"))
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", i) for i in (0, 1)])
    with foveate.attach(model, foveate.FastV(k=2)), torch.no_grad():
        expected = model(**inputs).logits
    model.model.language_model.compile(backend="eager")
    with torch.no_grad():
        model(**inputs)
        with foveate.attach(model, foveate.FastV(k=2)):
            assert torch.equal(model(**inputs).logits, expected)
        with foveate.attach(model, foveate.ZipVL()):
            with pytest.raises(UnsupportedCall, match="compiled language model"):
                model(**inputs)


def test_replicas_are_refused():
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    with foveate.attach(model, foveate.DivPrune(keep=0.5)):
        replica = model.model._replicate_for_data_parallel()
        with pytest.raises(UnsupportedCall, match="DataParallel"):
            replica(**inputs)


def test_graphs_and_continuous_batches_are_refused():
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    words = zoo.text_sample("llava").ids
    with foveate.attach(model, foveate.DivPrune(keep=0.5)):
        with pytest.raises(UnsupportedCall, match=r"torch\.export"):
            torch.export.export(model, (), kwargs=inputs, strict=False)
        with pytest.raises(UnsupportedCall, match="Continuous batching"):
            model.generate_batch([words])
        with pytest.raises(UnsupportedCall, match="Continuous batching"):
            model.init_continuous_batching()
    assert "generate_batch" not in vars(model)
