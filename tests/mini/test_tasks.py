"""Tasks beyond the core: right answers, visible targets, balance, knobs, words that exist."""

import inspect
import json
import re
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from foveate.errors import FoveateError
from foveate.mini import world
from foveate.mini.text import build_tokenizer
from foveate.mini.world.grammar import BACKGROUNDS, find, overlap
from foveate.mini.world.keys import HELD_OUT_PAIRS, HELD_OUT_WORDS, generator
from foveate.mini.world.palette import apart, unit
from foveate.mini.world.places import PLACES, WEATHERS
from foveate.mini.world.scene import Canvas, region
from foveate.mini.world.tasks.i3_relation import PHRASES, ahead
from foveate.mini.world.tasks.i13_scene import HELD_OUT_VIEWS
from foveate.mini.world.vocabulary import COLOURS, SHAPES

NEW = [task for task in world.CATALOGUE if task not in world.TASKS]
SINGLE = [task for task in NEW if world.CATALOGUE[task].medium == "image"]
PLACED = [(t, s) for s in (64, 112, 192) for t in world.tasks(s) if t in NEW]


def named(question, words):
    """The words of a question that belong to a list, in the order of the question."""
    return [word for word in re.findall(r"[a-z0-9-]+", question) if word in words]


def referents(scene, question):
    """The objects that the question names by colour and shape, each the only one of its kind."""
    found = []
    for colour, shape in re.findall(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b", question):
        (one,) = find(scene, shape, colour)
        found.append(one)
    return found


def relation(item):
    scene, objects = item.scene, item.scene.objects
    (side,) = [s for s, phrase in PHRASES.items() if re.search(rf"\b{phrase}\b", item.question)]
    margin = 1.5 * scene.canvas.patch
    if item.meta["kind"] == "check":
        a, b = referents(scene, item.question)
        assert abs(ahead(side, a, b)) >= margin
        return "yes" if ahead(side, a, b) > 0 else "no"
    (anchor,) = referents(scene, item.question)
    there = [o for o in objects if o is not anchor and ahead(side, o, anchor) > 0]
    assert len(there) == 1 and ahead(side, there[0], anchor) >= margin
    return there[0].shape


def tiny(item):
    scene, (shape,) = item.scene, named(item.question, SHAPES)
    small = [o for o in scene.objects if o.extent < scene.canvas.patch]
    assert len(small) == 1 and small[0].shape == shape
    assert all(o.extent > 3 * small[0].extent for o in scene.objects if o is not small[0])
    return small[0].colour


def camouflage(item):
    (colour,) = named(item.question, COLOURS)
    (target,) = find(item.scene, colour=colour)
    ground = item.scene.background.first
    assert 0.07 <= apart(unit(colour), ground) <= 0.16
    for other in item.scene.objects:
        assert other is target or apart(unit(other.colour), ground) >= 0.4
    return target.shape


def crowd(item):
    kinds = Counter((o.shape, o.colour) for o in item.scene.objects)
    (copy, many), (odd, once) = kinds.most_common()
    assert once == 1 and many >= 15
    if item.meta["kind"] == "colour":
        assert named(item.question, SHAPES) == [odd[0]] != [copy[0]]
        return odd[1]
    assert named(item.question, COLOURS) == [odd[1]] != [copy[1]]
    return odd[0]


def anchor(item):
    (target,) = referents(item.scene, item.question)

    def gap(text):
        (x0, y0, x1, y1), (a0, b0, a1, b1) = target.box, text.box
        return max(a0 - x1, x0 - a1, 0) + max(b0 - y1, y0 - b1, 0)

    first, second, *_ = sorted(item.scene.texts, key=gap)
    assert gap(first) < 0.75 * gap(second)
    assert len({t.string for t in item.scene.texts}) == len(item.scene.texts) >= 3
    return first.string


def scene_type(item):
    ground = item.scene.background
    return ground.weather if item.meta["kind"] == "weather" else ground.kind


def scale(item):
    if item.meta["kind"] == "check":
        a, b = referents(item.scene, item.question)
        ratio = a.extent / b.extent
    else:
        (shape,) = named(item.question, SHAPES)
        a, b = (find(item.scene, shape, c)[0] for c in named(item.question, COLOURS))
        ratio = a.extent / b.extent
    assert a.shape == b.shape and 1.19 <= max(ratio, 1 / ratio) <= 1.61
    if item.meta["kind"] == "check":
        return "yes" if ratio > 1 else "no"
    return a.colour if ratio > 1 else b.colour


def document(item):
    scene, kind = item.scene, item.meta["kind"]
    if kind == "title":
        largest = max(t.scale for t in scene.texts)
        (title,) = [t for t in scene.texts if t.scale == largest]
        assert title.y < min(t.y for t in scene.texts if t is not title)
        return title.string.lower()
    if kind == "cell":
        row, column = (int(n) for n in re.findall(r"\d", item.question))
        numbers = [t for t in scene.texts if t.string.isdigit()]
        rows = sorted({t.y for t in numbers})
        line = sorted((t for t in numbers if t.y == rows[row - 1]), key=lambda t: t.x)
        return line[column - 1].string
    words = re.findall(r"[a-z]+", item.question)
    body = [t for t in scene.texts if t.scale == min(t.scale for t in scene.texts)]
    (key,) = [t for t in body if t.string.lower() in words]
    return min((t for t in body if t.y == key.y and t.x > key.x), key=lambda t: t.x).string


def chart(item):
    """Heights are read off the numbers on the left."""
    scene = item.scene
    ticks = {int(t.string): t.y for t in scene.texts if t.string.isdigit()}
    unit_high = (ticks[2] - ticks[8]) / 6
    heights = {}
    for text in scene.texts:
        if not text.string.isdigit():
            middle = (text.box[0] + text.box[2]) / 2
            over = [p for p in scene.panels if p.x0 < middle < p.x1 and p.y1 == text.y - 3]
            (bar,) = [p for p in over if p.y1 - p.y0 > 1]
            heights[text.string] = round((bar.y1 - bar.y0) / unit_high)
    assert len(heights) == item.meta["bars"] >= 3
    if item.meta["kind"] == "value":
        return str(heights[re.findall(r"\b[A-Z]\b", item.question)[0]])
    wanted = (max if item.meta["kind"] == "tallest" else min)(heights.values())
    (letter,) = [name for name, height in heights.items() if height == wanted]
    return letter


def several(item):
    if item.meta["kind"] == "differ":
        first, second = item.scenes
        pairs = zip(first.objects, second.objects, strict=True)
        (changed,) = [(a, b) for a, b in pairs if a != b]
        assert changed[0] == replace(changed[1], colour=changed[0].colour)
        assert len({o.shape for o in first.objects}) == len(first.objects)
        return changed[0].shape
    (colour,), (shape,) = named(item.question, COLOURS), named(item.question, SHAPES)
    (frame,) = [k for k, scene in enumerate(item.scenes) if find(scene, shape, colour)]
    assert item.frames == (frame,) and len(item.candidates) == len(item.scenes)
    return str(frame + 1)


def in_context(item):
    """The one attribute that stands beside one word only, whatever its value, is the rule."""
    words = [part for part in item.content if part != world.PICTURE]
    looks = [scene.objects[0] for scene in item.scenes]
    answers = set()
    for rule in ("shape", "colour", "texture"):
        meanings = {}
        for look, word in zip(looks, words, strict=False):
            meanings.setdefault(getattr(look, rule), set()).add(word)
        if all(len(meaning) == 1 for meaning in meanings.values()):
            answers |= meanings[getattr(looks[-1], rule)]
    assert len(words) == len(looks) - 1 and item.content[0] == item.content[-1] == world.PICTURE
    (answer,) = answers
    return answer


def dialogue(item):
    """Follows what "it" is from turn to turn; the answer of the first turn."""
    scene, it = item.scene, None
    objects = scene.objects
    for turn in item.turns:
        kind, question = turn.meta["kind"], turn.question
        if kind == "name":
            (it,) = find(scene, shape=named(question, SHAPES)[0])
            expected = it.colour
        elif kind == "where":
            expected = region(it.x, it.y, scene.canvas.size)
        elif kind == "colour":
            expected = it.colour
        elif kind == "beside":
            (side,) = [s for s, phrase in PHRASES.items() if re.search(rf"\b{phrase}\b", question)]
            (it,) = [o for o in objects if o is not it and ahead(side, o, it) > 0]
            expected = it.shape
        elif kind == "count":
            it, expected = None, str(len(find(scene, colour=named(question, COLOURS)[0])))
        else:
            it, expected = None, scene.texts[0].string.lower()
        assert turn.answer == expected and turn.answer in turn.candidates, question
    asked = [turn.question for turn in item.turns]
    assert len(asked) >= 4 and item.turns[-1].evidence != item.turns[0].evidence
    assert item.question == asked[0]
    return item.turns[0].answer


EXPECTED = {
    "I11": document,
    "I12": chart,
    "I15": several,
    "I16": in_context,
    "I17": dialogue,
    "I3": relation,
    "I6": tiny,
    "I7": camouflage,
    "I8": crowd,
    "I10": anchor,
    "I13": scene_type,
    "I14": scale,
}


@pytest.mark.parametrize("split", ["train", "test", "test-ood"])
@pytest.mark.parametrize("task, size", PLACED)
def test_answers_can_be_worked_out_again(task, size, split):
    for item in world.items(task, split, 16, size=size):
        assert item.answer == EXPECTED[task](item), item.question
        assert item.answer in item.candidates and set(item.rivals) <= set(item.candidates)
        assert item.answer not in item.rivals
        assert len(set(item.candidates)) == len(item.candidates)


@pytest.mark.parametrize("task", [t for t in SINGLE if t in ("I3", "I6", "I7", "I8", "I14")])
def test_what_is_asked_about_is_not_hidden(task):
    for item in world.items(task, "test", 16, size=112):
        _, owners = world.render([item.scene], owners=True)
        for box in item.evidence:
            index = next(i for i, o in enumerate(item.scene.objects) if o.box == box)
            alone = replace(item.scene, objects=(item.scene.objects[index],), texts=())
            _, whole = world.render([alone], owners=True)
            seen = int((owners == index).sum())
            for text in item.scene.texts:
                x0, y0, x1, y1 = (int(v) for v in text.box)
                seen -= int((owners[0, y0:y1, x0:x1] == index).sum())
            assert seen >= 0.8 * int((whole == 0).sum()) > 0


@pytest.mark.parametrize("task", NEW)
def test_answers_are_balanced(task):
    size = 192 if 192 in {s for t, s in PLACED if t == task} else 112
    run = world.items(task, "test", 240, size=size)
    for candidates in {item.candidates for item in run}:
        group = [item for item in run if item.candidates == candidates]
        for kind in {item.meta.get("kind") for item in group}:
            counts = Counter(i.answer for i in group if i.meta.get("kind") == kind)
            assert max(counts.values()) - min(counts.values()) <= 1 + len(group) // 40, counts


@pytest.mark.parametrize("task", SINGLE)
def test_easy_scenes_for_training_can_be_drawn(task):
    kind, canvas = world.CATALOGUE[task], Canvas(112 if task != "I11" else 192)
    for index in range(12):
        for level in (0.0, 0.5):
            rng = generator("train", "easy", index)
            scene, question = kind.draw(rng, canvas, "train", index, level, words=0.45)
            probe = world.item(task, "val", 0, size=canvas.size)
            made = replace(probe, scene=scene, question=question.text, answer=question.answer)
            if task in ("I3", "I13"):
                made = replace(made, meta=question.meta)
                assert EXPECTED[task](made) == question.answer


@pytest.mark.parametrize("task", ["I3", "I6", "I14"])
def test_questions_asked_of_other_scenes_are_right(task):
    probe, asked = world.item(task, "val", 0, size=112), 0
    for index in range(80):
        rng = generator("val", "cross", index)
        other = ("I2", "I5", "I6", "I14")[index % 4]
        scene = world.item(other, "val", index, size=112).scene
        question = world.CATALOGUE[task].ask(rng, scene, "val")
        if question is None:
            continue
        asked += 1
        made = replace(probe, scene=scene, question=question.text, meta=question.meta)
        if task == "I3":
            assert relation(made) == question.answer
        elif task == "I14":
            assert question.meta["ratio"] >= 1.2
            assert question.answer in question.candidates
        else:
            assert tiny(made) == question.answer
    assert asked >= 10


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("task", NEW)
def test_held_out_combinations_are_never_drawn(task, split):
    size = 192 if task == "I11" else 112
    for item in world.items(task, split, 40, size=size):
        for scene in item.scenes:
            assert not {(o.shape, o.colour) for o in scene.objects} & HELD_OUT_PAIRS
            assert not {t.string.lower() for t in scene.texts} & set(HELD_OUT_WORDS)
            assert (scene.background.kind, scene.background.weather) not in HELD_OUT_VIEWS


def test_ood_asks_about_held_out_combinations():
    for task in ("I6", "I7", "I8", "I14"):
        for item in world.items(task, "test-ood", 12, size=112):
            boxes = {o.box: (o.shape, o.colour) for o in item.scene.objects}
            assert HELD_OUT_PAIRS & {boxes[box] for box in item.evidence}
    for item in world.items("I13", "test-ood", 16, size=64):
        ground = item.scene.background
        assert ground.kind in BACKGROUNDS or (ground.kind, ground.weather) in HELD_OUT_VIEWS


@pytest.mark.parametrize("task", NEW)
def test_wordings_of_ood_are_unseen_and_all_words_exist(task):
    tokenizer = build_tokenizer()
    size = 192 if task == "I11" else 112
    for form in ("word", "letter"):
        for split in ("train", "test-ood"):
            for item in world.items(task, split, 30, size=size, form=form):
                for turn in item.turns or (item,):
                    for text in (turn.question, *turn.candidates, *item.content):
                        assert tokenizer.unk_token_id not in tokenizer(text).input_ids, text


@pytest.mark.parametrize("task", NEW)
def test_letters_go_round_and_options_hold_the_answer(task):
    size = 192 if task == "I11" else 112
    for item in world.items(task, "test", 24, size=size, form="letter"):
        plain = world.item(task, "test", item.index, size=size)
        for turn, word in zip(item.turns or (item,), plain.turns or (plain,), strict=True):
            assert turn.options["ABCDEF".index(turn.answer)] == word.answer
            assert len(set(turn.options)) == len(turn.options)
            near = [r for r in word.rivals if r != word.answer]
            assert len(set(turn.options) & set(near)) >= min(len(near), len(turn.options) - 1)


@pytest.mark.parametrize("task", NEW)
def test_items_are_json_and_pictures_are_reproducible(task):
    size = 192 if task == "I11" else 112
    item = world.item(task, "test", 3, size=size)
    read = json.loads(json.dumps(item.to_dict()))
    again = world.item(task, "test", 3, size=size)
    assert json.loads(json.dumps(again.to_dict())) == read
    for one, other in zip(item.images(), again.images(), strict=True):
        assert one.size == (size, size) and one.tobytes() == other.tobytes()
    together, _ = world.render(list(item.scenes) + list(again.scenes))
    assert torch.equal(together[: len(item.scenes)], together[len(item.scenes) :])


def test_places_and_weathers_look_different():
    means = {}
    for index in range(60):
        item = world.item("I13", "test", index, size=64)
        ground = item.scene.background
        if ground.kind in PLACES:
            picture = np.asarray(item.image(), dtype=float)
            means.setdefault((ground.kind, ground.weather), []).append(picture.mean((0, 1)))
    assert {place for place, _ in means} == set(PLACES)
    assert {weather for _, weather in means} == set(WEATHERS)


def test_tasks_of_a_size():
    assert set(world.TASKS) <= set(world.tasks(64)) < set(world.CATALOGUE)
    assert "I6" not in world.tasks(64) and "I6" in world.tasks(112)
    assert set(world.tasks(112, medium="image")) <= set(world.tasks(112))
    with pytest.raises(FoveateError):
        world.tasks(112, medium="smell")
    with pytest.raises(FoveateError, match="112 to 512 px"):
        world.item("I6", "test", 0, size=64)


def test_knobs_change_the_item_and_its_name():
    item = world.item("I14", "test", 0, size=112, ratio=(2.0, 2.5))
    assert 2.0 <= item.meta["ratio"] <= 2.5 and "ratio=" in item.id
    assert item.id != world.item("I14", "test", 0, size=112).id
    with pytest.raises(FoveateError, match="ratio"):
        world.item("I14", "test", 0, size=112, ratoi=(2.0, 2.5))
    with pytest.raises(FoveateError):
        world.item("I14", "test", 0, size=112, ratio=(2.0, 0.5))
    for task in world.CATALOGUE.values():
        assert all(json.dumps(value) for value in task.knobs().values())
        assert not set(task.knobs()) & set(inspect.signature(world.item).parameters)


def test_messages_hold_pictures_words_and_turns_in_order():
    item = world.item("I16", "test", 1)
    (message,) = item.messages()
    kinds = [part["type"] for part in message["content"]]
    assert kinds.count("image") == len(item.images()) and kinds[:2] == ["image", "text"]
    assert kinds[-2:] == ["image", "text"] and message["content"][-1]["text"] == item.question
    with pytest.raises(FoveateError, match="images"):
        item.image()

    talk = world.item("I17", "test", 1)
    whole = talk.messages()
    assert [m["role"] for m in whole[:3]] == ["user", "assistant", "user"]
    assert whole[-1]["content"][0]["text"] == talk.turns[-1].question
    assert talk.messages(0) == whole[:1] and whole[0]["content"][0] == {"type": "image"}
    assert len(talk.to_dict()["turns"]) == len(talk.turns)
    with pytest.raises(FoveateError, match="turn"):
        talk.messages(99)


def test_dialogues_come_back_to_what_was_said():
    kinds = Counter(
        t.meta["kind"] for item in world.items("I17", "test", 40, size=112) for t in item.turns
    )
    assert min(kinds[k] for k in ("name", "where", "beside", "colour", "count", "read")) >= 3


@pytest.mark.parametrize(
    "task, size", [("I10", 112), ("I11", 192), ("I11", 384), ("I12", 64), ("I12", 192), ("I17", 64)]
)
def test_text_can_be_read(task, size):
    """All of it on the picture, nothing on top of anything, ink far from the ground."""
    for split in ("train", "test-ood"):
        for item in world.items(task, split, 24, size=size):
            boxes = [text.box for text in item.scene.texts]
            for box in boxes:
                assert 0 <= box[0] and 0 <= box[1] and box[2] <= size and box[3] <= size, item.id
            for a, b in combinations(boxes, 2):
                assert not overlap(a, b, -1), (item.id, a, b)
            for o in item.scene.objects:
                assert not any(overlap(o.box, box) for box in boxes)
            for text in item.scene.texts:
                assert apart(unit(text.colour), item.scene.background.first) >= 0.3
            for panel in item.scene.panels:
                assert 0 <= panel.x0 < panel.x1 <= size and 0 <= panel.y0 < panel.y1 <= size


@pytest.mark.parametrize(
    "task, size, knobs",
    [
        ("I3", 64, {"margin": 3, "count": (3, 3)}),
        ("I3", 112, {"count": (10, 16)}),
        ("I6", 112, {"decoys": (0, 0)}),
        ("I6", 112, {"decoys": (8, 8), "target": (1.0, 1.5)}),
        ("I7", 64, {"decoys": (12, 12), "contrast": (0.3, 0.5)}),
        ("I8", 112, {"copies": (80, 80)}),
        ("I10", 112, {"count": (12, 12), "digits": 2, "scale": 3}),
        ("I11", 192, {"scale": 3, "lines": (40, 60), "rows": (12, 20), "columns": (8, 8)}),
        ("I11", 384, {"scale": 1, "lines": (40, 60), "rows": (8, 10), "columns": (8, 8)}),
        ("I12", 64, {"bars": (9, 9)}),
        ("I13", 64, {"clutter": (12, 12)}),
        ("I14", 64, {"distance": 0.8, "ratio": (2, 3), "others": (4, 4)}),
        ("I15", 64, {"count": (9, 9), "objects": (1, 1)}),
        ("I16", 64, {"shots": (16, 16)}),
        ("I17", 64, {"turns": (12, 12), "objects": (6, 9)}),
    ],
)
def test_knobs_may_be_turned_far(task, size, knobs):
    for item in world.items(task, "test", 6, size=size, **knobs):
        assert item.answer in item.candidates
        assert all(image.size == (size, size) for image in item.images())


def test_impossible_knobs_are_refused():
    with pytest.raises(FoveateError, match="not enough"):
        world.item("I17", "test", 0, size=64, turns=(12, 12), objects=(2, 2))
    with pytest.raises(FoveateError, match="out of range"):
        world.item("I3", "test", 0, margin=9)
