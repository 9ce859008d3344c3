"""Checkpoints of every family load without torchvision, and answer about pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from typer.testing import CliRunner

import foveate
from foveate import processors
from foveate.assets import PHOTOGRAPH
from foveate.cli import app
from foveate.media import load_image
from tests.checkpoints import FAMILIES, VIDEO, save_checkpoint

everywhere = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(autouse=True)
def without_torchvision(monkeypatch):
    monkeypatch.setattr(processors, "is_torchvision_available", lambda: False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = save_checkpoint(family, tmp_path_factory.mktemp(family))
        return made[family]

    return of


def turn(picture: Image.Image, question: str) -> list[dict]:
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def written(processor, messages):
    return processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


def ask(folder: Path, *arguments: object) -> dict:
    fixed = ["ask", PHOTOGRAPH, "-q", "what?", "--model", folder, "--max-new-tokens", 3, "--json"]
    done = CliRunner().invoke(app, [str(a) for a in (*fixed, *arguments)])
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


@everywhere
def test_asking_a_folder_is_what_transformers_answers(family, checkpoint):
    folder = checkpoint(family)
    processor = foveate.load_processor(folder)
    assert type(processor).__name__ == FAMILIES[family][0]
    assert isinstance(processor, getattr(hf, FAMILIES[family][0]))
    model = hf.AutoModelForImageTextToText.from_pretrained(folder).eval()
    inputs = written(processor, turn(load_image(PHOTOGRAPH), "what?"))
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    new = out[0, inputs["input_ids"].shape[1] :]
    expected = processor.decode(new, skip_special_tokens=True).strip()
    asked = ask(folder)
    assert asked["answer"] == expected
    image = processor.tokenizer.convert_tokens_to_ids(FAMILIES[family][4][1])
    tokens = asked["report"]["tokens_in"]
    assert sum(tokens) == int((inputs["input_ids"] == image).sum()) > 1
    half = ask(folder, "--method", "divprune", "--keep", "50%")["report"]
    assert half["tokens_in"] == tokens and half["tokens_out"] == [n // 2 for n in tokens]


@pytest.mark.parametrize("family", VIDEO)
def test_a_video_is_refused_in_one_sentence(family, checkpoint):
    processor = foveate.load_processor(checkpoint(family))
    frames = np.zeros((4, 56, 56, 3), np.uint8)
    with pytest.raises(foveate.UnsupportedCall, match="video processors .* need torchvision"):
        processor(text=FAMILIES[family][4][2], videos=[[frames]], return_tensors="pt")


@pytest.mark.parametrize("family", VIDEO)
def test_saving_keeps_the_settings_of_the_video_slot(family, checkpoint, tmp_path):
    processor = foveate.load_processor(checkpoint(family))
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["processor_class"] == FAMILIES[family][0]
    before = json.loads((checkpoint(family) / "processor_config.json").read_text())
    assert saved["video_processor"] == before["video_processor"]
    again = written(foveate.load_processor(tmp_path), turn(load_image(PHOTOGRAPH), "what?"))
    first = written(processor, turn(load_image(PHOTOGRAPH), "what?"))
    assert all(torch.equal(again[name], value) for name, value in first.items())


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "glm4v"])
def test_files_of_transformers_4_load(family, checkpoint, tmp_path):
    expected = written(
        foveate.load_processor(checkpoint(family)), turn(load_image(PHOTOGRAPH), "what?")
    )
    processor = foveate.load_processor(save_checkpoint(family, tmp_path, old=True))
    assert type(processor).__name__ == FAMILIES[family][0]
    assert processor.video_processor.patch_size == 14
    found = written(processor, turn(load_image(PHOTOGRAPH), "what?"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "glm4v", "paligemma"])
def test_several_pictures_without_a_chat_template(family, tmp_path):
    folder = save_checkpoint(family, tmp_path, template=False)
    asked = ask(folder, PHOTOGRAPH)
    assert len(asked["report"]["tokens_in"]) == 2


def test_torchvision_leaves_everything_to_transformers(checkpoint, monkeypatch):
    loaded = []
    monkeypatch.setattr(processors, "is_torchvision_available", lambda: True)
    monkeypatch.setattr(
        processors.AutoProcessor, "from_pretrained", lambda *a, **k: loaded.append(a)
    )
    foveate.load_processor(checkpoint("qwen2_vl"))
    assert loaded == [(str(checkpoint("qwen2_vl")),)]


def test_a_folder_without_a_processor_is_said(tmp_path):
    with pytest.raises(foveate.FoveateError, match="can't be loaded"):
        foveate.load_processor(tmp_path)
    (tmp_path / "processor_config.json").write_text("{")
    with pytest.raises(foveate.FoveateError, match="not a valid JSON"):
        foveate.load_processor(tmp_path)
