"""Files of the world, read back the way the programs that take them read."""

import base64
import csv
import importlib.util
import io
import json
import sys

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from foveate.cli import app
from foveate.mini import world
from foveate.mini.world import exports, gallery
from foveate.mini.world.exports import mmbench

csv.field_size_limit(sys.maxsize)


def run(*words):
    return CliRunner().invoke(app, ["world", *(str(word) for word in words)])


def same(image, item, k=0):
    return image.convert("RGB").tobytes() == item.images()[k].tobytes()


def test_jsonl_is_read_back(tmp_path):
    out = tmp_path / "files"
    arguments = ("--image", "--task", "I3", "--task", "I15", "--task", "I17", "--n", 3)
    done = run("--out", out, *arguments, "--size", 112)
    assert done.exit_code == 0, done.output
    for task in ("I3", "I15", "I17"):
        rows = [json.loads(line) for line in (out / f"{task}.jsonl").read_text().splitlines()]
        assert len(rows) == 3
        for index, row in enumerate(rows):
            item = world.item(task, "test", index, size=112)
            assert row["id"] == item.id and row["answer"] == row["answer_text"] == item.answer
            assert row["split"] == "test" and row["task"] == task
            assert {"level", "group", "t_ask", "duration", "meta"} <= set(row)
            assert row["media"]["frames"] == len(item.images()) == len(row["media"]["files"])
            parts = [p for m in row["messages"] for p in m["content"] if p["type"] == "image"]
            assert [part["path"] for part in parts] == row["media"]["files"]
            for k, path in enumerate(row["media"]["files"]):
                assert same(Image.open(out / path), item, k)
            for spot, frame in zip(row["evidence"], item.frames or (0, 0), strict=False):
                assert spot["frame"] == frame and len(spot["box"]) == 4
            assert len(row.get("turns", ())) == len(item.turns)


def read_tsv(path):
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def test_mmbench_is_read_back(tmp_path):
    done = run("--out", tmp_path, "--export", "mmbench", "--n", 3, "--task", "I1", "--task", "I3")
    assert done.exit_code == 0, done.output
    rows = read_tsv(tmp_path / mmbench.FILE)
    assert [row["index"] for row in rows] == [str(k) for k in range(6)]
    for k, row in enumerate(rows):
        assert list(row) == list(mmbench.COLUMNS)
        item = world.item(("I1", "I3")[k // 3], "test", k % 3, size=112)
        assert row[row["answer"]] == item.answer and row["question"] == item.question
        assert same(Image.open(io.BytesIO(base64.b64decode(row["image"]))), item)
        options = [row[letter] for letter in "ABCD" if row[letter]]
        assert len(set(options)) == len(options) >= 2
        assert row["category"] and row["l2-category"]


def test_circular_variants_are_all_rotations(tmp_path):
    exports.write(world.items("I1", "test", 2), tmp_path, "mmbench", circular=True)
    rows = read_tsv(tmp_path / mmbench.FILE)
    for index in (0, 1):
        group = [row for row in rows if int(row["index"]) % mmbench.ROTATION == index]
        assert sorted(row["answer"] for row in group) == list("ABCD")
        assert len({row[row["answer"]] for row in group}) == 1
        assert len({tuple(row[x] for x in "ABCD") for row in group}) == 4
        assert len({tuple(sorted(row[x] for x in "ABCD")) for row in group}) == 1


def test_mmbench_takes_lettered_items_too():
    item = world.item("I1", "test", 1, form="letter")
    (row,) = mmbench.rows(item, 0)
    assert row["question"] == world.item("I1", "test", 1).question
    assert [row[x] for x in "ABCD"] == list(item.options) and row["answer"] == item.answer


class Loader(yaml.SafeLoader):
    """Reads ``!function module.name`` as lmms-eval does."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node).split("."))


@pytest.mark.parametrize("task, size", [("I3", 112), ("I16", 64), ("I17", 112)])
def test_lmms_eval_is_read_back(task, size, tmp_path):
    done = run("--out", tmp_path, "--task", task, "--n", 2, "--size", size, "--export", "lmms-eval")
    assert done.exit_code == 0, done.output
    name = f"world_{task.lower()}"
    group = yaml.load((tmp_path / "world.yaml").read_text(), Loader)
    assert group == {"group": "world", "task": [name]}
    config = yaml.load((tmp_path / f"{name}.yaml").read_text(), Loader)
    assert config["task"] == name and config["output_type"] == "generate_until"
    data = config["dataset_kwargs"]["data_files"][config["test_split"]]
    docs = [json.loads(line) for line in open(data, encoding="utf-8")]

    module, function = config["doc_to_visual"]
    spec = importlib.util.spec_from_file_location(module, tmp_path / f"{module}.py")
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    prompts = config["lmms_eval_specific_kwargs"]["default"]
    items = world.items(task, "test", 2, size=size)
    turns = [(item, turn) for item in items for turn in item.turns or (item,)]
    assert len(turns) == len(docs)
    for doc, (item, turn) in zip(docs, turns, strict=True):
        pictures = getattr(code, function)(doc)
        assert len(pictures) == len(item.images())
        assert all(same(picture, item, k) for k, picture in enumerate(pictures))
        text = getattr(code, config["doc_to_text"][1])(doc, prompts)
        assert turn.question in text and text.endswith("word or number.")
        assert text.count("<image>") == (len(pictures) if task == "I16" else 0)
        assert doc[config["doc_to_target"]] == turn.answer
        score = getattr(code, config["process_results"][1])
        assert score(doc, [f" {turn.answer.capitalize()}."]) == {"exact_match": 1.0}
        assert score(doc, ["nothing"]) == {"exact_match": 0.0}
    if task == "I17":
        assert items[0].turns[0].question in docs[1]["question"]


@pytest.mark.parametrize(
    "words, said",
    [
        (("--task", "I33"), "did you mean"),
        (("--task", "I11"), "does not exist at 112 px"),
        (("--size", 100), "does not fit patches"),
        (("--size", 8), "No task exists"),
        (("--split", "dev", "--task", "I1"), "split='dev' is unknown"),
        (("--n", 2000, "--task", "I1"), "1000 items"),
        (("--circular", "--task", "I1"), "mmbench"),
        (("--export", "mmbench", "--task", "I15", "--n", 1), "jsonl"),
    ],
)
def test_bad_input_is_one_sentence(words, said, tmp_path):
    done = run("--out", tmp_path / "new", *words)
    assert done.exit_code == 2 and said in done.output, done.output
    assert "Traceback" not in done.output and done.output.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_folders_that_hold_files_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = run("--out", tmp_path, "--task", "I1", "--n", 1)
    assert done.exit_code == 2 and "--force" in done.output
    done = run("--out", tmp_path / "mine.txt", "--task", "I1", "--n", 1)
    assert done.exit_code == 2 and "is a file" in done.output
    done = run("--out", tmp_path, "--task", "I1", "--n", 1, "--force", "--json")
    assert done.exit_code == 0 and json.loads(done.output)["items"] == 1
    assert (tmp_path / "mine.txt").read_text() == "mine" and (tmp_path / "I1.jsonl").exists()


def test_all_tasks_of_a_size_are_the_default(tmp_path):
    done = run("--out", tmp_path / "all", "--n", 1, "--size", 64, "--json")
    assert json.loads(done.output)["tasks"] == list(world.tasks(64))
    done = run("--out", tmp_path / "rows", "--n", 1, "--export", "mmbench", "--json")
    assert json.loads(done.output)["tasks"] == list(world.tasks(112, medium="image"))


def test_page_and_its_pictures_are_up_to_date(tmp_path):
    from pathlib import Path

    docs = Path(__file__).resolve().parents[2] / "docs"
    gallery.write(tmp_path)
    hint = "run: python -m foveate.mini.world.gallery docs"
    assert (tmp_path / "world.md").read_text() == (docs / "world.md").read_text(), hint
    for made in (tmp_path / "world").iterdir():
        kept = docs / "world" / made.name
        # The label font may differ between versions of the drawing library.
        a, b = (np.asarray(Image.open(path).convert("RGB"), dtype=int) for path in (made, kept))
        assert a.shape == b.shape and (a != b).mean() < 0.02, hint
