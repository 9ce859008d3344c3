"""The configurations: those of shipped weights stay, the largest one fits into its 16 MB."""

import json

import pytest
import torch

from foveate.mini import WEIGHTS
from foveate.mini.architecture import (
    image_config,
    large_image_config,
    nano_config,
    new_model,
    position_codes,
)


def _covers(made: dict, stored: dict, path: str = "") -> None:
    """Every setting in the file is the one that would be written today."""
    for key, value in stored.items():
        if isinstance(value, dict):
            _covers(made[key], value, f"{path}{key}.")
        elif key not in ("architectures", "dtype", "transformers_version"):
            assert made[key] == value, path + key


@pytest.mark.parametrize("folder, config", [("nano", nano_config), ("mini-image", image_config)])
def test_shipped_weights_have_the_configuration_of_their_recipe(folder, config):
    stored = json.loads((WEIGHTS / folder / "config.json").read_text())
    _covers(json.loads(config().to_json_string(use_diff=False)), stored)


@pytest.fixture(scope="module")
def large():
    return new_model(large_image_config(), 0)


def test_the_large_one_fits(large):
    assert large.config.image_seq_length == 576
    bytes_ = 2 * sum(p.numel() for p in large.parameters())
    assert 15.5e6 < bytes_ < 15.95e6  # the file has a header too
    norms = large.get_input_embeddings().weight.norm(dim=-1)
    assert abs(float(norms.detach().mean()) - 1) < 0.02


def test_heads_attend_to_neighbours_on_its_grid_too(large):
    """Places 16 apart have opposite codes there, none has the code of another."""
    tower = large.model.vision_tower
    codes = position_codes(tower)
    alike = codes @ codes.T
    assert bool((alike.argmax(1) == torch.arange(len(codes))).all())
    attention, width, side = tower.encoder.layers[0].self_attn, codes.shape[1], 24
    middle = 10 * side + 11
    for head, step in enumerate((-side, side, -1, 1)):  # up, down, left, right
        rows = slice(head * width, (head + 1) * width)
        query = codes[middle] @ attention.q_proj.weight[rows, :width].T
        key = codes @ attention.k_proj.weight[rows, :width].T
        assert int((key @ query).argmax()) == middle + step
