"""Placeholders and control tokens in a user's question."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from foveate.assets import PHOTOGRAPH
from foveate.cli import app
from foveate.errors import InvalidParameter
from foveate.prompts import turn
from tests.checkpoints import save_checkpoint


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    names = ("llava", "qwen2_vl", "gemma3")
    return {name: save_checkpoint(name, tmp_path_factory.mktemp(name)) for name in names}


def run(folder: Path, question: str, pictures: int = 1):
    shown = [str(PHOTOGRAPH)] * pictures
    fixed = ["-q", question, "--model", str(folder), "--max-new-tokens", "4", "--json"]
    return CliRunner().invoke(app, ["ask", *shown, *fixed])


def answer(folder: Path, question: str, pictures: int = 1) -> str:
    done = run(folder, question, pictures)
    assert done.exit_code == 0, (done.output, done.exception)
    found = json.loads(done.stdout)
    assert len(found["report"]["tokens_in"]) == pictures
    return found["answer"]


def refusal(folder: Path, question: str, pictures: int = 1) -> str:
    done = run(folder, question, pictures)
    assert done.exit_code == 2, done.output
    return done.stderr


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("llava", "<image>"),
        ("qwen2_vl", "<image>"),
        ("qwen2_vl", "<|image_pad|>"),
        ("gemma3", "<start_of_image>"),
    ],
)
def test_a_line_for_each_picture_is_where_it_stands(folders, name, line):
    folder = folders[name]
    for pictures in (1, 2):
        asked = f"{line}\n" * pictures + "what?"
        assert answer(folder, asked, pictures) == answer(folder, "what?", pictures)
    assert answer(folder, f"  {line} \nwhat?") == answer(folder, "what?")


def test_a_line_behind_the_question_puts_the_picture_there(folders):
    in_front = answer(folders["llava"], "what?")
    assert answer(folders["llava"], "what?\n<image>") != in_front
    around = answer(folders["llava"], "<image>\nwhat?\n<image>", 2)
    assert around != answer(folders["llava"], "what?", 2)


@pytest.mark.parametrize(
    ("name", "question", "named"),
    [
        ("llava", "is <video> one?", "<video>"),
        ("llava", "what? <s>", "<s>"),
        ("qwen2_vl", "a <|video_pad|> ?", "<|video_pad|>"),
        ("qwen2_vl", "<|vision_start|>what?", "<|vision_start|>"),
        ("gemma3", "<image_soft_token>\nwhat?", "<image_soft_token>"),
    ],
)
def test_control_tokens_are_refused_by_name(folders, name, question, named):
    said = refusal(folders[name], question)
    assert f"contains '{named}'" in " ".join(said.split()) and "control token" in said


def test_a_placeholder_inside_the_text_must_get_a_line(folders):
    said = " ".join(refusal(folders["llava"], "an <image> here?").split())
    assert "contains '<image>' inside the text" in said
    assert "on a line of its own, at the start or the end" in said


def test_tokenizers_of_another_kind_name_their_control_tokens():
    processor = SimpleNamespace(tokenizer=SimpleNamespace(all_special_tokens=["<s>"]))
    assert turn(processor, "what?", 1).words == "what?"
    with pytest.raises(InvalidParameter, match="contains '<s>'"):
        turn(processor, "what? <s>", 1)


def test_lines_and_pictures_must_agree(folders):
    said = " ".join(refusal(folders["llava"], "<image>\nwhat?", 2).split())
    assert "1 placeholder line(s) for 2 image(s)" in said
    assert "has no text" in refusal(folders["llava"], "<image>\n")


def test_words_that_only_look_like_a_placeholder_stay_words(folders):
    """Qwen2-VL knows no <image>: inside a sentence it is plain text, and changes the answer."""
    assert answer(folders["qwen2_vl"], "an <image> tag?") != answer(folders["qwen2_vl"], "an tag?")


def test_tune_reads_lines_as_ask_does(folders, tmp_path):
    for name, question, code in (
        ("good", "<image>\nwhat?", (0, 1)),
        ("bad", "an <image> here?", (2,)),
    ):
        rows = [
            {"image": str(PHOTOGRAPH), "question": question, "answer": "a", "choices": ["a", "b"]},
            {
                "image": str(tmp_path / "other.jpg"),
                "question": "w?",
                "answer": "b",
                "choices": ["a", "b"],
            },
        ]
        (tmp_path / "other.jpg").write_bytes(PHOTOGRAPH.read_bytes())
        data = tmp_path / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        command = ["tune", "--model", folders["llava"], "--data", data, "--methods", "uniform"]
        command += ["--keep", "50%", "--out", tmp_path / f"{name}.json", "--json"]
        done = CliRunner().invoke(app, [str(part) for part in command])
        assert done.exit_code in code, (done.output, done.exception)
        assert ("on a line of its own" in done.stderr) == (name == "bad")
