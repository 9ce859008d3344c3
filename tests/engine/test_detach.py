"""`detach` restores the model, with instance attributes that it had before `attach`."""

import copy
import functools

import foveate
from tests.families import zoo


def test_attributes_of_the_model_come_back():
    model = copy.deepcopy(zoo.model("llava"))
    generate, features = model.generate, model.model.get_image_features
    model.generate = functools.partial(generate, do_sample=False)
    model.model.get_image_features = functools.partial(features)
    own = model.generate, model.model.get_image_features
    attachment = foveate.attach(model, foveate.DivPrune(keep=4))
    assert (model.generate, model.model.get_image_features) != own
    attachment.detach()
    assert (model.generate, model.model.get_image_features) == own
    attachment.detach()
    assert (model.generate, model.model.get_image_features) == own


def test_a_second_detach_leaves_a_new_attachment_alone():
    model = copy.deepcopy(zoo.model("llava"))
    first = foveate.attach(model, foveate.DivPrune(keep=4))
    first.detach()
    with foveate.attach(model, foveate.DivPrune(keep=3)):
        own = model.generate
        first.detach()
        assert model.generate is own
    assert "generate" not in vars(model)
