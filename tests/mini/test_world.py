"""The world: same pictures every time, right answers, right places, splits that do not meet."""

import json
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from foveate.errors import FoveateError
from foveate.mini import world
from foveate.mini.world import font, manifest, palette, shapes
from foveate.mini.world.grammar import find
from foveate.mini.world.keys import HELD_OUT_PAIRS, HELD_OUT_WORDS, PAIRS, generator
from foveate.mini.world.labels import COLUMN, patch_words, picture_labels
from foveate.mini.world.scene import region
from foveate.mini.world.vocabulary import COLOURS, LEXICON, SHAPES, TEXTURES, VOCABULARY_SIZE, words

TASKS = list(world.TASKS)
CANVASES = [(64, 8), (112, 8), (192, 8)]


def test_manifest_is_unchanged():
    assert manifest.measured() == manifest.stored()


@pytest.mark.parametrize("task", TASKS)
def test_items_do_not_depend_on_order_or_company(task):
    run = world.items(task, "test", 6)
    alone = world.item(task, "test", 4)
    assert alone.to_dict() == run[4].to_dict()
    together, _ = world.render([item.scene for item in run])
    for item, pixels in zip(run, together, strict=True):
        assert torch.equal(item.pixels(), pixels)
        assert item.pixels().dtype == torch.uint8
    assert world.items(task, "test", 2, start=4)[0].id == alone.id


def test_items_leave_global_random_state_alone():
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    world.item("I4", "test", 0).pixels()
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])


def _expected(item):
    """The answer worked out again from the scene and the words of the question."""
    asked = set(item.question.strip("?.").replace("?", " ").split())
    shape = next((s for s in SHAPES if s in asked), None)
    colour = next((c for c in COLOURS if c in asked), None)
    scene = item.scene
    if item.task == "I1":
        found = (
            find(scene, shape=shape)
            if item.meta["kind"] == "colour"
            else find(scene, colour=colour)
        )
        assert len(found) == 1
        return found[0].colour if item.meta["kind"] == "colour" else found[0].shape
    if item.task == "I2":
        (target,) = find(scene, shape, colour)
        return region(target.x, target.y, scene.canvas.size)
    if item.task == "I4":
        return str(len(find(scene, shape, colour)))
    if item.task == "I5":
        return "yes" if find(scene, shape, colour) else "no"
    found = [t for t in scene.texts if len(scene.texts) == 1 or t.colour == colour]
    assert len(found) == 1
    return found[0].string.lower()


@pytest.mark.parametrize("size, patch", CANVASES)
@pytest.mark.parametrize("split", ["train", "test", "test-ood"])
@pytest.mark.parametrize("task", TASKS)
def test_answers_are_right(task, split, size, patch):
    for item in world.items(task, split, 40, size=size, patch=patch):
        assert item.answer == _expected(item), item.question
        assert item.answer in item.candidates


@pytest.mark.parametrize("task", TASKS)
def test_questions_asked_of_other_scenes_are_right(task):
    for index in range(60):
        rng = generator("val", "cross", index)
        scene = world.item(TASKS[index % len(TASKS)], "val", index).scene
        question = world.TASKS[task].ask(rng, scene, "val")
        if question is None or any(t in question.text for t in TEXTURES):
            continue
        probe = world.item(task, "val", 0)
        item = replace(
            probe,
            question=question.text,
            answer=question.answer,
            scene=scene,
            meta=question.meta,
        )
        assert question.answer == _expected(item)


@pytest.mark.parametrize("size, patch", CANVASES)
@pytest.mark.parametrize("task", TASKS)
def test_evidence_boxes_hold_the_object(task, size, patch):
    for item in world.items(task, "test", 12, size=size, patch=patch):
        pixels = item.pixels().numpy()
        for x0, y0, x1, y1 in item.evidence:
            assert -1 <= x0 < x1 <= size + 1 and -1 <= y0 < y1 <= size + 1
            inside = pixels[max(0, int(y0)) : int(y1) + 1, max(0, int(x0)) : int(x1) + 1]
            assert len(np.unique(inside.reshape(-1, 3), axis=0)) > 1
        if item.task in ("I1", "I2"):
            (box,) = item.evidence
            _, owners = world.render([item.scene], owners=True)
            index = next(i for i, o in enumerate(item.scene.objects) if o.box == box)
            y, x = torch.nonzero(owners[0] == index, as_tuple=True)
            assert len(x) > 0.1 * (box[2] - box[0]) ** 2
            assert x.min() >= box[0] - 1 and x.max() <= box[2] + 1
            assert y.min() >= box[1] - 1 and y.max() <= box[3] + 1
        if item.task == "I4":
            assert len(item.evidence) == int(item.answer)


@pytest.mark.parametrize("task", TASKS)
def test_test_pictures_are_all_different(task):
    seen = Counter(item.pixels().numpy().tobytes() for item in world.items(task, "test", 250))
    assert max(seen.values()) == 1


def test_splits_do_not_share_pictures():
    pictures = [
        {item.pixels().numpy().tobytes() for item in world.items("I2", split, 40)}
        for split in world.SPLITS
    ]
    assert all(not (a & b) for a, b in combinations(pictures, 2))


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("task", TASKS)
def test_held_out_pairs_and_words_are_never_drawn(task, split):
    for item in world.items(task, split, 120):
        drawn = {(o.shape, o.colour) for o in item.scene.objects}
        assert not drawn & HELD_OUT_PAIRS
        assert not {t.string.lower() for t in item.scene.texts} & set(HELD_OUT_WORDS)
        if task == "I5":
            asked = item.question.strip("?.").split()
            pair = next(s for s in SHAPES if s in asked), next(c for c in COLOURS if c in asked)
            assert pair not in HELD_OUT_PAIRS


def test_ood_asks_about_held_out_pairs_in_unseen_words():
    seen = {item.question.split("the")[0] for item in world.items("I1", "train", 200)}
    for item in world.items("I1", "test-ood", 40):
        (box,) = item.evidence
        target = next(o for o in item.scene.objects if o.box == box)
        assert (target.shape, target.colour) in HELD_OUT_PAIRS
        assert item.question.split("the")[0] not in seen
    assert all(item.answer in HELD_OUT_WORDS for item in world.items("I9", "test-ood", 20))


def test_held_out_share():
    assert 0.12 <= len(HELD_OUT_PAIRS) / len(PAIRS) <= 0.18
    assert len(HELD_OUT_WORDS) == 8 and len(LEXICON) == 64
    seen = set(PAIRS) - HELD_OUT_PAIRS
    assert {s for s, _ in seen} == set(SHAPES) and {c for _, c in seen} == set(COLOURS)


@pytest.mark.parametrize("task", TASKS)
def test_answers_are_balanced(task):
    run = world.items(task, "test", 360)
    for candidates in {item.candidates for item in run}:
        counts = Counter(item.answer for item in run if item.candidates == candidates)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_letter_form():
    run = world.items("I1", "test", 40, form="letter")
    assert Counter(item.answer for item in run) == dict.fromkeys("ABCD", 10)
    for item in run:
        assert item.options["ABCD".index(item.answer)] == item.meta["answer_text"]
        assert len(set(item.options)) == 4
        assert f"({item.answer}) {item.meta['answer_text']}" in item.question


def test_items_are_json():
    for task in TASKS:
        item = world.item(task, "test", 3)
        read = json.loads(json.dumps(item.to_dict()))
        assert read["answer"] == item.answer and read["media"]["key"] == item.id


def test_vocabulary_covers_all_questions():
    from foveate.mini.text import build_tokenizer

    tokenizer = build_tokenizer()
    assert len(words()) == len(set(words())) == VOCABULARY_SIZE == len(tokenizer)
    for task in TASKS:
        for split in ("train", "test-ood"):
            for form in ("word", "letter"):
                for item in world.items(task, split, 60, form=form):
                    for text in (item.question, *item.candidates):
                        ids = tokenizer(text).input_ids
                        assert tokenizer.unk_token_id not in ids, text


def test_colours_are_far_apart():
    assert min(palette.distance(a, b) for a, b in combinations(COLOURS, 2)) > 20


def test_shapes_fit_their_square_and_differ():
    axis = np.linspace(-shapes.REACH, shapes.REACH, shapes.SAMPLES)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    inside = shapes.atlas() < 0
    assert not inside[:, (abs(x) > 1.02) | (abs(y) > 1.02)].any()
    for a, b in combinations(range(len(SHAPES)), 2):
        union = (inside[a] | inside[b]).sum()
        assert (inside[a] & inside[b]).sum() / union < 0.9, (SHAPES[a], SHAPES[b])


def test_font_has_letters_digits_and_six_signs():
    assert len(font.CHARACTERS) == 26 + 10 + 6 + 1
    assert len({font.dots(c, 1).tobytes() for c in font.CHARACTERS}) == len(font.CHARACTERS)
    assert font.dots("AB", 2).shape == (14, font.width("AB", 2))


def test_patch_words_name_what_lies_on_the_patch():
    item = world.item("I2", "test", 5)
    _, owners = world.render([item.scene], owners=True)
    labels = patch_words([item.scene], owners)
    assert labels.shape == (1, 64, len(COLUMN))
    (box,) = item.evidence
    target = next(o for o in item.scene.objects if o.box == box)
    patch = int(target.y // 8) * 8 + int(target.x // 8)
    for word in (target.colour, target.shape, target.texture, item.answer):
        assert labels[0, patch, COLUMN[word]] == 1
    assert (labels.sum(-1) >= 1).all()
    assert picture_labels([item.scene]).sum() == len(
        {(o.shape, o.colour) for o in item.scene.objects}
    ) + len(item.scene.texts)


def test_text_patches_carry_their_characters():
    item = world.item("I9", "test", 7)
    _, owners = world.render([item.scene], owners=True)
    labels = patch_words([item.scene], owners)[0].amax(0)
    for character in item.answer.upper():
        assert labels[COLUMN[character]] == 1
    assert labels[COLUMN[item.answer]] == 1


def test_wrong_names_are_refused():
    for call in (
        lambda: world.item("I11", "test", 0),
        lambda: world.item("I1", "dev", 0),
        lambda: world.item("I1", "test", 0, size=60),
        lambda: world.item("I1", "test", 0, form="essay"),
    ):
        with pytest.raises(FoveateError):
            call()
