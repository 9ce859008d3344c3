"""The mini CLIP model: its text tower, its captions, its pictures to name."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel
from typer.testing import CliRunner

from foveate import TCA, mini, zero_shot
from foveate.cli import app
from foveate.errors import FoveateError
from foveate.mini import clip, clip_training
from foveate.mini.clip_card import image_features, recall, text_features
from foveate.mini.world.captions import MOST, caption, facts, pictures
from foveate.mini.world.classes import KINDS, PROMPTS, labelled
from foveate.mini.world.keys import generator
from foveate.mini.world.render import render
from foveate.mini.world.scene import Canvas
from foveate.mini.world.shifts import SEVERITIES, SHIFTS, shifted
from foveate.mini.world.vocabulary import ids

CANVAS = Canvas(64, 8)


@pytest.fixture(scope="module")
def loaded():
    return mini.load("clip")


def test_it_is_stock_and_small(loaded):
    model, _ = loaded
    assert isinstance(model, CLIPModel) and not model.training
    assert (mini.WEIGHTS / "nano-text" / "model.safetensors").stat().st_size <= 1_000_000


def test_its_eyes_are_those_of_the_base(loaded):
    base, processor = mini.load("nano")
    pixels, _ = render(pictures("val", 0, 2, CANVAS))
    inputs = processor.image_processor(list(pixels.numpy()), return_tensors="pt")
    theirs = loaded[1](images=list(pixels.numpy()), return_tensors="pt")
    assert torch.equal(inputs.pixel_values, theirs.pixel_values)
    with torch.no_grad():
        expected = base.model.vision_tower(inputs.pixel_values).pooler_output
        found = loaded[0].vision_model(theirs.pixel_values).pooler_output
    torch.testing.assert_close(found, expected)


def test_the_end_of_a_text_is_what_is_read(loaded):
    """Padding and what stands behind the end change nothing; every word before it does."""
    model, processor = loaded
    texts = ["a red ring", "a red ring and a blue star at the top-left"]
    both = text_features(model, processor, texts)
    for i, text in enumerate(texts):
        torch.testing.assert_close(text_features(model, processor, [text])[0], both[i])
    row = processor(text=texts[:1], return_tensors="pt").input_ids[0].tolist()
    assert row[0] == ids()["<bos>"] and row[-1] == model.config.text_config.eos_token_id != 2
    assert not torch.allclose(*text_features(model, processor, ["a red ring", "a red star"]))


def test_captions_say_what_is_there_in_known_words(loaded):
    tokenizer = loaded[1].tokenizer
    scenes = pictures("train", 0, 60, CANVAS)
    for i, scene in enumerate(scenes):
        rng = generator("val", "caption", i)
        told = caption(rng, scene, fewest=MOST)
        row = tokenizer(told).input_ids
        assert ids()["<unk>"] not in row and len(row) <= clip.LONGEST, told
        shapes = {o.shape for o in scene.objects}
        said = set(told.replace(",", "").split())
        assert {w for w in said if w in KINDS["shape"]} <= shapes
        assert len(facts(rng, scene)) >= len(scene.objects)
    assert scenes == pictures("train", 0, 60, CANVAS) != pictures("train", 0, 60, CANVAS, seed=1)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_to_name_are_balanced(kind):
    shown = [labelled(kind, "test", i, CANVAS) for i in range(2 * len(KINDS[kind]))]
    assert sorted(s.label for s in shown) == sorted(2 * KINDS[kind])
    for s in shown:
        words = {s.scene.background.kind} if kind == "place" else set()
        words |= {getattr(o, kind) for o in s.scene.objects} if kind != "place" else set()
        assert words == {s.label}
    with pytest.raises(FoveateError, match="smell"):
        labelled("smell", "test", 0, CANVAS)


@pytest.mark.parametrize("shift", SHIFTS)
def test_shifts_grow(shift):
    pixels = render(pictures("val", 0, 1, CANVAS))[0][0].numpy()
    gaps = []
    for severity in SEVERITIES:
        made = [shifted(pixels, shift, severity, generator("val", "s", 0)) for _ in range(2)]
        assert made[0].dtype == np.uint8 and made[0].shape == pixels.shape
        assert np.array_equal(*made)
        gaps.append(np.abs(made[0].astype(float) - pixels).mean())
    assert gaps == sorted(gaps) and gaps[0] > 0
    with pytest.raises(FoveateError, match="severity=6"):
        shifted(pixels, shift, 6, generator("val", "s", 0))
    with pytest.raises(FoveateError, match="unknown shift"):
        shifted(pixels, "fire", 1, generator("val", "s", 0))


def test_it_names_pictures_and_finds_captions(loaded):
    model, processor = loaded
    scenes = pictures("val", 0, 60, CANVAS)
    told = [caption(generator("val", "t", i), s, fewest=MOST) for i, s in enumerate(scenes)]
    alike = image_features(model, processor, scenes) @ text_features(model, processor, told).T
    assert recall(alike)["R@5"] > 0.6
    shown = [labelled("colour", "val", i, CANVAS) for i in range(60)]
    texts = text_features(
        model, processor, [PROMPTS["colour"][0].format(c) for c in KINDS["colour"]]
    )
    said = (image_features(model, processor, [s.scene for s in shown]) @ texts.T).argmax(1)
    right = [KINDS["colour"][k] == s.label for k, s in zip(said.tolist(), shown, strict=True)]
    assert sum(right) > 45


def test_recall_counts_places():
    alike = torch.eye(8)
    assert recall(alike) == {"R@1": 1.0, "R@5": 1.0}
    alike[0] = torch.tensor([0.0, 1, 1, 1, 1, 1, 0, 0])
    assert recall(alike) == {"R@1": 0.875, "R@5": 0.875}


def test_training_repeats_and_ends_in_a_folder(tmp_path):
    runs = [
        clip_training.train(tmp_path / n, recipe=clip_training.SMOKE, progress=False, evaluate=0)
        for n in ("a", "b")
    ]
    models = [clip.load_clip(run)[0].state_dict() for run in runs]
    for name, value in models[0].items():
        assert torch.equal(value, models[1][name]), name
    card = json.loads((runs[0] / "card.json").read_text())
    assert card["vision"] == "nano" and card["recipe"]["steps"] == 2
    with pytest.raises(FoveateError, match="evaluate=3"):
        clip_training.train(tmp_path / "c", recipe=clip_training.SMOKE, progress=False, evaluate=3)


def test_other_eyes_are_refused(tmp_path):
    folder = shutil.copytree(mini.WEIGHTS / "nano-text", tmp_path / "text")
    card = json.loads((folder / "card.json").read_text()) | {"fingerprint": "0"}
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(FoveateError, match="foveate train mini-text --model nano"):
        clip.load_clip(folder)


def test_the_command_trains_it(monkeypatch, tmp_path):
    asked = {}

    def train(out, **options):
        asked.update(options, out=out)
        return out

    monkeypatch.setattr(clip_training, "train", train)
    line = ["train", "mini-text", "--model", "nano", "--steps", "7", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, [*line, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["model"] == "nano-text"
    assert asked == {"out": tmp_path, "model": "nano", "steps": 7, "seed": 0, "progress": False}


def test_it_names_a_stream(loaded):
    stream = zero_shot(*loaded, ["red", "blue"], TCA(), templates=["a {} object"])
    said = stream(Image.new("RGB", (64, 64), (222, 30, 30)))
    assert said.label in ("red", "blue") and said.tokens[-1] == 1 + round(64 * 76 / 196)
