import json

import pytest
from PIL import Image

from foveate.mini import world
from foveate.mini.world import exports
from foveate.tuning import Sample, TuneError, read_samples, world_samples
from foveate.tuning.samples import split

GOOD = {"image": "a.png", "question": "what is written?", "answer": "STOP"}


@pytest.fixture
def write(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def write(*rows):
        path = tmp_path / "data.jsonl"
        path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
        return path

    return write


def test_rows_with_and_without_choices(write, tmp_path):
    path = write(GOOD, "", {**GOOD, "images": ["a.png", "a.png"], "choices": ["STOP", "GO"]})
    free, chosen = read_samples(path)
    assert free == Sample(GOOD["question"], "STOP", (tmp_path / "a.png",), ("STOP",), False)
    assert chosen.candidates == ("STOP", "GO") and chosen.likely and len(chosen.images) == 2


def test_an_export_of_the_synthetic_tasks_is_a_sample_file(tmp_path):
    items = world.items("I1", "val", 3)
    (path,) = exports.write(items, tmp_path / "out")
    samples = read_samples(path)
    assert [s.answer for s in samples] == [i.answer for i in items]
    assert samples[0].candidates == items[0].candidates
    drawn = world_samples(["I1"], 3, 64, 8)
    assert [s.question for s in drawn] == [s.question for s in samples]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ({**GOOD, "image": "b.png"}, "no image"),
        ({**GOOD, "image": None}, "has no image"),
        ({**GOOD, "question": " "}, "no question"),
        ({"image": "a.png", "question": "who?"}, "no answer"),
        ({**GOOD, "choices": ["A", "B"]}, "not one of the choices"),
        ({**GOOD, "choices": "STOP"}, "list of"),
        ({"video": "a.mp4", "question": "who?", "answer": "I"}, "no image or video"),
        ({**GOOD, "video": "a.png"}, "more than one video"),
        ({"video": ["a.png"], "question": "who?", "answer": "I"}, "more than one video"),
    ],
)
def test_an_invalid_line_is_named(write, row, words):
    with pytest.raises(TuneError, match=f"Line 3 of .*{words}"):
        read_samples(write(GOOD, GOOD, row))


def test_files_without_samples(write, tmp_path):
    with pytest.raises(TuneError, match="no samples"):
        read_samples(write("", " "))
    with pytest.raises(TuneError, match="no file"):
        read_samples(tmp_path / "none.jsonl")
    with pytest.raises(TuneError, match="cannot be read"):
        read_samples(tmp_path)


def test_samples_of_one_image_go_to_one_split():
    samples = [Sample(f"{i}?", "yes", (f"{i // 3}.png",)) for i in range(30)]
    fit, out = split(samples, 0.4, 0)
    assert len(fit) + len(out) == 30 and 10 <= len(out) <= 14
    assert not {s.images for s in fit} & {s.images for s in out}
    assert split(samples, 0.4, 0) == (fit, out) != split(samples, 0.4, 1)
    with pytest.raises(TuneError, match="cannot be split"):
        split(samples[:3], 0.5, 0)
