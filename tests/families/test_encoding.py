"""Laws of parts that act before the projector: smaller pictures, merging inside the tower."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import foveate
from foveate.errors import FoveateError
from foveate.families.base import family_of
from foveate.method import Method
from foveate.ops.matching import above, merge_chosen, pair_up
from foveate.parts import BlockState, EncodersPart, FramesPart
from foveate.tokens import Grid

from . import zoo
from .reference import Drop, Reference, every_second, flat, visual_columns
from .running import assert_equal, assert_unequal, bare, generate

ANY_SIZE = ("llava", "video_llava", "paligemma", "fast_vlm", *zoo.GRID_FAMILIES)
MERGING = ("llava", "llava_next", "llava_next_video", "llava_onevision", "video_llava", "paligemma")


@dataclass(frozen=True, kw_only=True, repr=False)
class Smaller(Method, FramesPart):
    """Pictures that make about `keep` of their tokens; 0.999 rounds to all of them."""

    slug = "smaller"

    keep: float = 0.25

    def shape(self, grid: Grid) -> tuple[int, int]:
        side = self.keep**0.5
        return max(1, round(grid.h * side)), max(1, round(grid.w * side))


@dataclass(frozen=True, kw_only=True, repr=False)
class Pairs(Method, EncodersPart):
    """Fuses patches 2i and 2i + 1 in the first block; every other block is left alone."""

    slug = "pairs"

    active: bool = True
    proportional: bool = True

    def merge(self, block: int, blocks: int, state: BlockState) -> tuple[Tensor, int] | None:
        if block or not self.active:
            return None
        b, t = state.size.shape
        first = int(state.class_token)
        steps = torch.arange(t - first) // 2 + first
        assign = torch.cat([torch.arange(first), steps]).expand(b, -1)
        return assign, int(assign.max()) + 1


def pairs_of(families: tuple[str, ...]) -> list[tuple[str, str]]:
    return [case for case in zoo.CASES if case[0] in families]


@pytest.mark.parametrize(("name", "modality"), pairs_of(ANY_SIZE))
def test_pictures_of_full_size_are_the_bare_model(name, modality):
    model = zoo.model(name)
    samples = [zoo.sample(name, modality, i) for i in (0, 1)]
    method = Smaller(keep=0.999)
    with foveate.attach(model, method):
        run = generate(model, zoo.batch(name, samples), 4)
    for i in (0, 1):
        expected = bare(name, modality, "sdpa", i)
        assert_equal(run.row(i), (expected.tokens[0, :4], expected.logits[0, :4]))


@pytest.mark.parametrize(("name", "modality"), pairs_of(ANY_SIZE))
def test_smaller_pictures_make_fewer_tokens(name, modality):
    model = zoo.model(name)
    samples = [zoo.sample(name, modality, i) for i in (0, 1)]
    whole = [bare(name, modality, "sdpa", i).row(0) for i in (0, 1)]
    with foveate.attach(model, Smaller()) as attachment:
        batch = generate(model, zoo.batch(name, samples, padding=1), 4)
        for i, sample in enumerate(samples):
            alone = generate(model, zoo.batch(name, [sample]), 4)
            assert_equal(batch.row(i), alone.row(0))
            assert attachment.report.tokens_in == list(sample.items)
            assert attachment.report.tokens_out[0] <= sum(sample.items) // 2
            assert_unequal(alone.row(0), whole[i])


@pytest.mark.parametrize(("name", "modality"), pairs_of(ANY_SIZE))
def test_smaller_pictures_are_the_reference(name, modality):
    """Features of the smaller picture stand in slots of the full one, each in its own place."""
    model, sample = zoo.model(name), zoo.sample(name, modality, 0)
    family, config = family_of(model.config), model.config
    call, inputs = zoo.feature_call(model, modality, sample.inputs)
    full = family.layouts(config, modality, inputs, None)[0][0]
    smaller = family.shrink(config, modality, inputs, [Smaller().shape(full.grid)])
    small = family.layouts(config, modality, smaller, None)[0][0]
    with foveate.attach(model, Smaller()) as attachment:
        run = generate(model, zoo.batch(name, [sample]), 4)
    (kept,) = attachment.report.kept
    assert len(kept) == small.n
    assert kept.diff().gt(0).all()
    assert torch.equal(full.special[kept], small.special)
    assert torch.equal(full.view[kept], small.view)
    columns = visual_columns(sample)
    stays = torch.ones(len(sample.ids), dtype=torch.bool)
    stays[columns] = False
    stays[columns[kept]] = True
    with torch.no_grad():
        reference = Reference(model, name, sample)
        output = call(**smaller, return_dict=True)
    reference.features[columns[kept]] = flat(output.pooler_output)
    for i, plane in enumerate(getattr(output, "deepstack_features", None) or ()):
        reference.planes[i][columns[kept]] = flat(plane)
    packed = name not in zoo.MROPE_FAMILIES
    assert_equal(run.row(0), reference.generate(Drop(stays.nonzero()[:, 0], packed=packed), 4))


@pytest.mark.parametrize("name", sorted(set(zoo.FAMILIES) - set(ANY_SIZE)))
def test_towers_of_one_size_refuse_smaller_pictures(name):
    model = zoo.model(name)
    with foveate.attach(model, Smaller()), pytest.raises(FoveateError, match=name):
        generate(model, zoo.batch(name, [zoo.sample(name, "image", 0)]), 2)


def mergeable() -> list[tuple[str, str]]:
    """Cases whose tokens are single tower rows."""
    pooled = [("llava_next_video", "video"), ("llava_onevision", "video")]
    return [case for case in pairs_of(MERGING) if case not in pooled]


@pytest.mark.parametrize(("name", "modality"), mergeable())
def test_merging_nothing_is_the_bare_model(name, modality):
    model = zoo.model(name)
    with foveate.attach(model, Pairs(active=False)):
        run = generate(model, zoo.batch(name, [zoo.sample(name, modality, 0)]))
    assert_equal(run.row(0), bare(name, modality, "sdpa", 0).row(0))


@pytest.mark.parametrize(("name", "modality"), mergeable())
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_merging_pairs_halves_the_patches(name, modality, attention):
    model = zoo.model(name, attention)
    samples = [zoo.sample(name, modality, i) for i in (0, 1)]
    whole = [bare(name, modality, attention, i) for i in (0, 1)]
    with foveate.attach(model, Pairs()) as attachment:
        batch = generate(model, zoo.batch(name, samples, padding=1), 4)
        for i, sample in enumerate(samples):
            alone = generate(model, zoo.batch(name, [sample]), 4)
            assert_equal(batch.row(i), alone.row(0))
            assert attachment.report.tokens_out[0] < sum(sample.items)
            assert_unequal(alone.row(0), whole[i].row(0))
    assert torch.equal(
        generate(model, zoo.batch(name, samples[:1])).logits,
        whole[0].logits,
    )


@torch.no_grad()
def tower_with_pairs(model, pixels: Tensor) -> Tensor:
    """Projected features (16 / 2, D) of one picture by LLaVA's tower, written out by hand."""
    tower = model.model.vision_tower
    first, second, _ = tower.encoder.layers
    hidden = tower.pre_layrnorm(tower.embeddings(pixels))
    hidden = hidden + first.self_attn(hidden_states=first.layer_norm1(hidden))[0]
    patches = hidden[:, 1:].unflatten(1, (-1, 2)).mean(2)
    hidden = torch.cat([hidden[:, :1], patches], 1)
    hidden = hidden + first.mlp(first.layer_norm2(hidden))
    attention, normed = second.self_attn, second.layer_norm1(hidden)
    query, key, value = (
        layer(normed).unflatten(-1, (4, 8)).transpose(1, 2)
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    size = torch.tensor([1.0] + [2.0] * patches.shape[1])
    # A token that stands for two patches counts twice.
    weight = (query @ key.transpose(-1, -2) / 8**0.5).exp() * size
    mixed = (weight / weight.sum(-1, keepdim=True)) @ value
    hidden = hidden + attention.out_proj(mixed.transpose(1, 2).flatten(2))
    hidden = hidden + second.mlp(second.layer_norm2(hidden))
    return model.model.multi_modal_projector(hidden[0, 1:])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("positions", ["native", "original", "packed"])
def test_merging_pairs_is_the_reference(attention, positions):
    model, sample = zoo.model("llava", attention), zoo.sample("llava", "image", 0)
    reference = Reference(model, "llava", sample)
    merged = tower_with_pairs(model, sample.inputs["pixel_values"])
    reference.features = reference.features.detach()
    reference.features[visual_columns(sample)[::2]] = merged
    with foveate.attach(model, Pairs(positions=positions)):
        run = generate(model, zoo.batch("llava", [sample]))
    drop = Drop(every_second(sample), packed=positions != "original")
    assert_equal(run.row(0), reference.generate(drop, 12))


@pytest.mark.parametrize(
    ("name", "modality"), [case for case in zoo.CASES if case not in mergeable()]
)
def test_other_towers_refuse_to_merge(name, modality):
    model = zoo.model(name)
    with pytest.raises(FoveateError), foveate.attach(model, Pairs()):
        generate(model, zoo.batch(name, [zoo.sample(name, modality, 0)]), 2)


@dataclass(frozen=True, kw_only=True, repr=False)
class Alike(Method, EncodersPart):
    """Fuses all pairs above a likeness in every block, so that each picture keeps its own count."""

    slug = "alike"

    threshold: float = 0.2
    proportional: bool = True

    def merge(self, block: int, blocks: int, state: BlockState) -> tuple[Tensor, int] | None:
        best, partner = pair_up(state.keys.mean(1), state.class_token, state.valid)
        most = (state.valid.sum(1, keepdim=True) - int(state.class_token)) // 2
        return merge_chosen(above(best, self.threshold, most), best, partner, state.valid)


@pytest.mark.parametrize(
    ("name", "modality", "attention"),
    [(*case, "sdpa") for case in mergeable()] + [("llava", "image", "eager")],
)
@pytest.mark.parametrize("proportional", [True, False])
def test_pictures_of_one_batch_may_keep_different_counts(name, modality, attention, proportional):
    """Padding inside the tower changes nothing: not the answer, nor signals, nor the report."""
    model = zoo.model(name, attention)
    samples = [zoo.sample(name, modality, i) for i in (0, 1)]
    merging = Alike(proportional=proportional)
    received = foveate.FasterVLM(keep=0.5, score="received")
    mutual = foveate.FoPru(keep=0.5, score="given")
    for method in (merging, merging + received, merging + mutual):
        with foveate.attach(model, method) as attachment:
            batch = generate(model, zoo.batch(name, samples, padding=1), 4)
            together, flops = attachment.report, []
            for i, sample in enumerate(samples):
                alone = generate(model, zoo.batch(name, [sample]), 4)
                report = attachment.report
                assert_equal(batch.row(i), alone.row(0))
                assert report.tokens_out == [together.tokens_out[i]]
                flops.append(report.vision_flops)
        assert sum(flops) == together.vision_flops
        assert together.tokens_out[0] != together.tokens_out[1] or method is not merging


def test_the_one_token_of_a_small_picture_stands_in_its_middle():
    """Of 4 x 4 places it takes one of the inner four, not the corner at which counting begins."""
    model, sample = zoo.model("llava"), zoo.sample("llava", "image", 0)
    with foveate.attach(model, foveate.Downsample(keep=1)) as attachment, torch.no_grad():
        model(**zoo.batch("llava", [sample]))
    assert attachment.report.kept[0].tolist()[0] in (5, 6, 9, 10)
