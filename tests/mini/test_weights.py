"""The shipped nano: loads quietly, answers, and does not answer without its picture."""

import importlib
import json
import logging
import subprocess
import sys
import warnings

import pytest
import torch

from foveate import mini
from foveate.errors import FoveateError
from foveate.mini import world
from foveate.mini.evaluate import evaluate


@pytest.fixture(scope="module")
def nano():
    return mini.load("nano")


@pytest.fixture(scope="module")
def image():
    return mini.load("image")


def test_loads_without_a_word(capfd, caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        model, processor = mini.load("nano", dtype=torch.float32)
        item = world.item("I1", "test", 0)
        inputs = processor(
            images=item.image(),
            text=processor.apply_chat_template(
                [
                    {
                        "role": "user",
                        "content": [{"type": "image"}, {"type": "text", "text": item.question}],
                    }
                ],
                add_generation_prompt=True,
            ),
            return_tensors="pt",
        )
        model.generate(**inputs)
    assert model.dtype == torch.float32 and not model.training
    assert not caplog.records
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""


def test_is_stock_and_small():
    folder = mini.WEIGHTS / "nano"
    assert (folder / "model.safetensors").stat().st_size <= 5_000_000
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    assert config["text_config"]["num_hidden_layers"] >= 6
    assert (config["vision_feature_layer"], config["vision_feature_select_strategy"]) == (
        -2,
        "default",
    )


@pytest.mark.parametrize("task", ["I1", "I2"])
def test_answers_with_the_picture_and_not_without(nano, task):
    items = world.items(task, "test", 250)
    full = evaluate(*nano, items)
    no_image = evaluate(*nano, items, no_image=True)
    assert full.accuracy[task] >= 0.8
    assert no_image.accuracy[task] <= full.constant[task] + 0.06


def test_card_agrees_with_the_weights(nano):
    card = json.loads((mini.WEIGHTS / "nano" / "card.json").read_text())
    assert card["parameters"] == sum(p.numel() for p in nano[0].parameters())
    assert card["recipe"]["warm_up_steps"] and card["history"]
    for task in world.TASKS:
        items = world.items(task, "test", 100)
        found = evaluate(*nano, items, mode="likelihood").accuracy[task]
        assert abs(found - card["test"][task]["likelihood"]) < 0.2


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(FoveateError, match="did you mean 'nano'"):
        mini.load("nanno")


def test_package_is_light():
    heavy = "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    loaded = [
        subprocess.run(
            [sys.executable, "-c", f"import sys, {name}; {heavy}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in ("foveate", "foveate.mini")
    ]
    assert loaded[0] == loaded[1]


def test_the_module_is_the_shorthand(image):
    import foveate

    model, _ = foveate.mini("image", dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    for name, value in model.state_dict().items():
        assert torch.equal(value.float(), image[0].state_dict()[name]), name


def test_the_image_model_knows_what_its_card_keeps(image):
    """A few items of each kept task, with 196 tokens of 112 pixels."""
    folder = mini.WEIGHTS / "mini-image"
    assert (folder / "model.safetensors").stat().st_size <= 16_000_000
    card = json.loads((folder / "card.json").read_text())
    assert card["parameters"] == sum(p.numel() for p in image[0].parameters())
    assert card["tokens"] == image[0].config.image_seq_length == 196
    known = card["kept"]
    assert sum(card["test"][task]["full"] for task in known) / len(known) >= 0.8
    for task in known:
        items = world.items(task, "test", 50, size=card["size"])
        found = evaluate(*image, items, mode="likelihood").accuracy[task]
        assert abs(found - card["test"][task]["likelihood"]) < 0.2


def test_cards_are_found_by_name_and_role():
    # A submodule that is imported takes the place of a function of its name.
    importlib.import_module("foveate.mini.card")
    assert mini.model_card("image")["name"] == "mini-image"
    assert mini.model_card("nano")["name"] == "nano"
    assert mini.model_card("a folder of somebody's") == {}
