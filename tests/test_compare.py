"""`foveate.compare` shows the full model and methods side by side, measured in turns."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import foveate
from foveate import comparison
from foveate.assets import PHOTOGRAPH
from foveate.media import Frames, load_image

QUESTION = "what colour is the star ?"


@pytest.fixture(scope="module")
def nano():
    return foveate.mini("nano")


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return foveate.mini.world.items("I1", "test", 1)[0].image()


def compare(nano, media, methods, question: str = QUESTION, **options):
    return foveate.compare(*nano, media, question, methods, **{"repeats": 1, **options})


def test_full_model_first_then_methods_as_given(nano, picture):
    methods = [foveate.FastV(keep=0.25), "divprune"]
    found = compare(nano, picture, methods, max_new_tokens=4)
    assert isinstance(found, foveate.Comparison)
    assert [row.name for row in found.rows] == ["full model", "FastV(keep=0.25)", "DivPrune()"]
    assert [row.method for row in found.rows] == [None, methods[0], foveate.DivPrune()]
    full, fastv, divprune = (row.report for row in found.rows)
    assert full.tokens_in == full.tokens_out == [64] and full.flops == full.flops_full
    assert fastv.tokens_out == [16] and divprune.tokens_out == [6]
    assert full.speedup == 1.0 < fastv.speedup < divprune.speedup
    assert all(row.ttft > 0 and row.time_per_output_token > 0 for row in found.rows)
    assert all(row.report.peak_memory is None for row in found.rows), "no CUDA here"


def test_answers_are_those_of_generate(nano, picture):
    model, processor = nano
    found = compare(nano, picture, foveate.DivPrune(keep=2), max_new_tokens=4)
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}
    prompt = processor.apply_chat_template([turn], add_generation_prompt=True)
    inputs = processor(images=picture, text=prompt, return_tensors="pt")
    for row in found.rows:
        method = foveate.Uniform(keep=1.0) if row.method is None else row.method
        with foveate.attach(model, method):
            out = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        new = out[0, inputs["input_ids"].shape[1] :]
        assert row.answer == processor.decode(new, skip_special_tokens=True).strip()


def test_rows_take_turns_and_medians_are_shown(nano, picture, monkeypatch):
    """Seconds of each timed run, in order: the full model, then the method, three times."""
    first = iter([3.0, 1.0, 4.0, 2.0, 100.0, 0.5])
    attached = []

    def run(model, inputs, tokens):
        attached.append("generate" in model.__dict__)
        assert tokens == 16
        return comparison._Run(next(first), 0.25, None)

    monkeypatch.setattr(comparison, "_run", run)
    found = compare(nano, picture, "divprune", repeats=3, max_new_tokens=40)
    assert attached == [False, True] * 3
    assert [row.ttft for row in found.rows] == [4.0, 1.0]
    assert [row.measured_speedup for row in found.rows] == [1.0, 4.0]
    lines = str(found).splitlines()
    (shown,) = [line for line in lines if line.startswith("DivPrune()  ")]
    speedup = f"{found.rows[1].report.speedup:.2f}x"
    assert shown.split()[1:] == [
        *("6", "9.4", "%", "0.0450", speedup, "1,000", "4.00x", "250", "0.115")
    ]


def test_timed_runs_decode_the_same_number_of_tokens(nano, picture, monkeypatch):
    """An answer may end after one token; times per token are measured on more all the same."""
    lengths, run = [], comparison._run

    def counted(model, inputs, tokens):
        generate = model.generate

        def noted(**arguments):
            out = generate(**arguments)
            lengths.append(out.shape[1] - inputs["input_ids"].shape[1])
            return out

        with monkeypatch.context() as patch:
            patch.setitem(model.__dict__, "generate", noted)
            return run(model, inputs, tokens)

    monkeypatch.setattr(comparison, "_run", counted)
    compare(nano, picture, "divprune", max_new_tokens=6)
    assert lengths == [6, 6]


def test_one_token_has_no_time_per_output_token(nano, picture):
    found = compare(nano, picture, "divprune", max_new_tokens=1)
    assert [row.time_per_output_token for row in found.rows] == [0.0, 0.0]
    assert " - " in str(found)


def test_text_html_and_json(nano, picture):
    found = compare(nano, picture, ["divprune"], max_new_tokens=2)
    text, html = str(found), found._repr_html_()
    for words in (QUESTION, f"full model: {found.rows[0].answer}", "9.4 %", "medians of 1 inter"):
        assert words in text
    assert max(map(len, text.split("\n\n")[1].splitlines())) < 120, "fits a terminal"
    columns = "visual tokens|retention ratio|prefill GFLOPs|theoretical speed-up|TTFT (ms)"
    columns += "|measured speed-up|ms per output token|KV cache (MB)"
    for column in columns.split("|"):
        assert f"<th>{column}</th>" in html
        assert all(word in text for word in column.split())
    assert "peak memory" not in text and "\n" not in repr(found)
    assert found._repr_html_().count("<tr>") == 3
    data = json.loads(json.dumps(found.to_dict()))
    assert [row["name"] for row in data["rows"]] == ["full model", "DivPrune()"]
    assert data["rows"][0]["method"] is None and data["rows"][1]["method"]["method"] == "divprune"
    assert data["rows"][1]["report"]["tokens_out"] == [6] and data["device"] == "cpu"


def test_peak_memory_is_shown_where_it_was_measured(nano, picture, monkeypatch):
    peaks = iter([7_000_000, 5_000_000, 6_000_000, 4_000_000])
    monkeypatch.setattr(comparison, "_run", lambda *_: comparison._Run(1.0, 0.1, next(peaks)))
    found = compare(nano, picture, "divprune", repeats=2)
    assert [row.report.peak_memory for row in found.rows] == [7_000_000, 5_000_000]
    assert "peak memory" in str(found) and "<th>peak memory (MB)</th>" in found._repr_html_()
    assert [row["peak_memory"] for row in found.to_dict()["rows"]] == [7_000_000, 5_000_000]


def test_media_of_every_kind(nano, tmp_path):
    photograph = load_image(PHOTOGRAPH)
    array = np.asarray(photograph)
    for media in (PHOTOGRAPH, str(PHOTOGRAPH), photograph, array, torch.from_numpy(array.copy())):
        assert compare(nano, media, "divprune").rows[1].report.tokens_in == [64]
    several = compare(nano, [PHOTOGRAPH, photograph], "divprune").rows[1].report
    assert several.tokens_in == [64, 64]


def test_a_video_for_a_model_that_reads_images_only(nano, picture):
    frames = Frames([picture, picture, picture], [0.0, 1.0, 2.0], 1.0)
    found = compare(nano, frames, "divprune")
    assert found.rows[1].report.tokens_in == [64, 64, 64]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": []}, "methods=[] is empty"),
        ({"methods": ["divprun"]}, "did you mean 'divprune'"),
        ({"methods": [foveate.DivPrune]}, "DivPrune is a class"),
        ({"media": []}, "No image or video was given"),
        ({"media": "missing.png"}, "no file 'missing.png'"),
        ({"media": ["a.mp4", "b.png"]}, "one video alone, or images only"),
        ({"media": "missing.mp4"}, "no file 'missing.mp4'"),
        ({"question": ""}, "question"),
        ({"question": None}, "is not a text"),
        ({"repeats": 0}, "repeats=0 is not valid"),
        ({"max_new_tokens": 1.5}, "max_new_tokens=1.5 is not valid"),
        ({"frames": True}, "frames=True is not valid"),
        ({"processor": None}, "processor=None is not a processor"),
        ({"model": "nano"}, ""),
        ({"methods": [foveate.DivPrune(keep=65)]}, "64 tokens"),
    ],
)
def test_bad_input_is_one_sentence(nano, picture, change, words):
    model, processor = nano
    given = {
        **{"model": model, "processor": processor, "media": picture, "question": QUESTION},
        **{"methods": ["divprune"], "max_new_tokens": 2, "repeats": 1},
    }
    with pytest.raises(foveate.FoveateError) as caught:
        foveate.compare(**{**given, **change})
    text = str(caught.value)
    assert words in text and "\n" not in text and text.endswith((".", "?"))
    assert "generate" not in model.__dict__, "the model is bare again"


def test_an_attached_model_is_refused(nano, picture):
    with (
        foveate.attach(nano[0], foveate.DivPrune()),
        pytest.raises(foveate.FoveateError, match="detach it first"),
    ):
        compare(nano, picture, "fastv")


def test_the_error_of_a_method_names_it(nano, picture):
    with pytest.raises(foveate.BudgetError, match=r"^DivPrune\(keep=900\): keep=900 is more"):
        compare(nano, picture, ["divprune", foveate.DivPrune(keep=900)], repeats=1)
