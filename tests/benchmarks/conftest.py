"""A small untrained LLaVA with two decoder layers, for tests that need any model."""

from __future__ import annotations

import pytest

from foveate.benchmarks.loaded_model import inspect_model
from foveate.mini.architecture import nano_config, new_model, new_processor


def thin_config():
    config = nano_config()
    config.vision_config.num_hidden_layers = 3
    config.vision_config.intermediate_size = 64
    config.text_config.num_hidden_layers = 2
    config.text_config.intermediate_size = 64
    return config


@pytest.fixture(scope="session")
def pair():
    """(model, processor), untrained."""
    config = thin_config()
    return new_model(config, 0).eval(), new_processor(config)


@pytest.fixture(scope="session")
def under_test(pair):
    return inspect_model(*pair, "thin")


@pytest.fixture(scope="session")
def folder(pair, tmp_path_factory):
    """The same as a folder."""
    from foveate.mini.weights_loading import silent_bars

    made = tmp_path_factory.mktemp("thin")
    with silent_bars():
        pair[0].save_pretrained(made)
    pair[1].save_pretrained(made)
    return made
