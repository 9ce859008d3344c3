"""The controls that know the evidence: oracle, evidence removed, no visual tokens."""

import pytest
import torch

import foveate
from foveate.benchmarks.controls import DropAllTokens, EvidenceRemoved, Oracle
from foveate.benchmarks.evaluation import evaluate_method
from foveate.benchmarks.evidence import EvidenceBoxes, evidence_cells, importance, overlap
from foveate.benchmarks.task_items import TaskItems
from foveate.families.base import raster
from foveate.mini import world

LAYOUT = raster(1, 8, 8)


def painted(boxes, size=64, cells=8):
    """Share of every cell under each box, by counting points."""
    steps = (torch.arange(size * 8) + 0.5) / 8
    made = []
    for x0, y0, x1, y1 in boxes:
        x, y = (steps > x0) & (steps < x1), (steps > y0) & (steps < y1)
        inside = (y[:, None] & x[None]).float()
        k = len(steps) // cells
        made.append(inside.view(cells, k, cells, k).mean((1, 3)).flatten())
    return torch.stack(made)


def test_overlap_is_the_covered_share_of_each_cell():
    boxes = [(3.0, 9.0, 21.0, 30.0), (40.5, 2.0, 43.0, 5.0), (-6.0, 50.0, 5.0, 70.0)]
    found, slow = overlap(boxes, LAYOUT.position, LAYOUT.grid, 64), painted(boxes)
    held = found > 0
    torch.testing.assert_close(found[held], slow[held], atol=0.02, rtol=0)
    # A small object keeps its cell though it covers little of it; slivers of large boxes don't.
    assert held[1].sum() == 1 and slow[0][~held[0]].max() < 0.15


def test_every_box_gets_a_token_before_any_gets_two():
    boxes = [(0, 0, 24, 24), (40, 40, 48, 48)]
    score = importance(overlap(boxes, LAYOUT.position, LAYOUT.grid, 64))
    first = score.argsort(descending=True)[:2].tolist()
    assert 45 in first and first != [0, 1]
    assert int((score > 0).sum()) == 10


@pytest.fixture(scope="module")
def asked(under_test):
    return TaskItems(under_test, "I1", 6)


def kept(under_test, batch, method):
    with torch.no_grad(), foveate.attach(under_test.model, method) as attached:
        under_test.model(**batch.inputs)
        return [set(k.tolist()) for k in attached.report.kept]


def cells(item):
    shares = overlap(item.evidence, LAYOUT.position, LAYOUT.grid, 64)
    return set((shares.amax(0) > 0).nonzero()[:, 0].tolist())


def test_oracle_keeps_the_evidence(under_test, asked):
    evidence, batch = EvidenceBoxes(), asked.batches[0]
    evidence.set_items(batch.items)
    few = kept(under_test, batch, Oracle(keep=3, evidence=evidence))
    many = kept(under_test, batch, Oracle(keep=40, evidence=evidence))
    for item, small, large in zip(batch.items, few, many, strict=True):
        evidence = cells(item)
        assert len(small) == 3 and len(small & evidence) == min(3, len(evidence))
        assert len(large) == 40 and evidence <= large
        rest = sorted(large - evidence)
        assert rest[0] < 16 and rest[-1] > 48


def test_evidence_removed_drops_only_the_evidence(under_test, asked):
    evidence = EvidenceBoxes()
    counts = [evidence_cells(i, LAYOUT.grid, LAYOUT.position) for i in asked.items]
    seen = []
    for dropped, batch in asked.grouped(counts):
        evidence.dropped = dropped
        evidence.set_items(batch.items)
        for item, left in zip(
            batch.items, kept(under_test, batch, EvidenceRemoved(evidence=evidence)), strict=True
        ):
            assert left == set(range(64)) - cells(item)
        seen += batch.numbers
    assert sorted(seen) == list(range(6))


def test_answers_of_grouped_batches_are_in_item_order(under_test, asked):
    plain = evaluate_method(under_test, asked.batches, foveate.create("uniform", keep=0.5))
    mixed = [batch for _, batch in asked.grouped([3, 1, 2, 1, 3, 1])]
    assert mixed[0].numbers == [1, 3, 5]
    turned = evaluate_method(under_test, mixed, foveate.create("uniform", keep=0.5))
    assert (plain.right == turned.right).all()


def test_counting_keeps_all_objects_and_some_background(under_test):
    asked = TaskItems(under_test, "I4", 6)
    evidence, batch = EvidenceBoxes(), asked.batches[0]
    evidence.set_items(batch.items)
    assert all(
        len(boxes) == len(i.scene.objects)
        for boxes, i in zip(evidence.boxes, batch.items, strict=True)
    )
    method = Oracle(keep=24, evidence=evidence, background=True)
    for item, left in zip(batch.items, kept(under_test, batch, method), strict=True):
        boxes = tuple(o.box for o in item.scene.objects)
        shares = overlap(boxes, LAYOUT.position, LAYOUT.grid, 64)
        objects = set((shares.amax(0) > 0).nonzero()[:, 0].tolist())
        share = len(objects) / 64
        assert len(left) == 24 and len(left & objects) >= round(24 * share) - 1
        # Every object has its best cell.
        assert all(int(s.argmax()) in left for s in shares)


def test_evidence_can_cover_the_whole_image():
    item = world.items("I1", "test", 1)[0]
    evidence = EvidenceBoxes([((0, 0, 64, 64),)], 64)
    tokens = LAYOUT.tokens(torch.zeros(1, 64, 4))
    for background in (False, True):
        method = Oracle(evidence=evidence, background=background)
        chosen = method.select(tokens, None, 20)
        assert len(set(chosen[0].tolist())) == 20
    assert item.evidence


def test_drop_all_tokens_leaves_no_visual_token(under_test, asked):
    for k in range(under_test.layers):
        out = evaluate_method(under_test, asked.batches, DropAllTokens(k=k))
        assert out.tokens_out == 0 and out.tokens_mean == pytest.approx(64 * k / 2)
