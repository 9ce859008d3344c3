"""DyMU: the laws of merging by likeness, and of attention over the places that were merged."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import foveate
from foveate.errors import BudgetError, InvalidParameter, UnsupportedCall
from foveate.method import Method, from_dict
from foveate.methods.encoders.dymu import DyMU, Unmerging
from foveate.ops.matching import merge
from foveate.ops.unmerging import averaged
from foveate.parts import BlockState
from foveate.tokens import Grid
from tests.engine.running import close, generate
from tests.families import zoo


def tower(method, patches, blocks, class_token=True, batch=3, seed=0):
    """A tower that only merges: (per block the counts of each picture, groups, x, size, start)."""
    g = torch.Generator().manual_seed(seed)
    n = patches + class_token
    x, size = torch.randn(batch, n, 8, generator=g), torch.ones(batch, n)
    start, groups, counts = x, torch.arange(n).expand(batch, -1), []
    for i in range(blocks):
        keys = torch.randn(batch, 2, x.shape[1], 4, generator=g)
        plan = method.merge(i, blocks, BlockState(x, keys, size, class_token, patches))
        if plan is not None:
            total = merge(size[..., None], *plan, "sum")
            x = merge(x * size[..., None], *plan, "sum") / total.clamp(min=1)
            size, groups = total[..., 0], plan[0].gather(1, groups)
        counts.append(((size > 0).sum(1) - int(class_token)).tolist())
    return counts, groups, x, size, start


@settings(deadline=None, max_examples=40)
@given(
    patches=st.integers(1, 60),
    cut=st.floats(-1.0, 1.0),
    class_token=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_every_patch_is_in_one_token_and_mass_is_conserved(patches, cut, class_token, seed):
    method = DyMU(thresholds=(cut, cut / 2, 0.9))
    counts, groups, x, size, start = tower(method, patches, 3, class_token, seed=seed)
    assert (size.sum(1) == patches + class_token).all()
    torch.testing.assert_close((x * size[..., None]).sum(1), start.sum(1), atol=1e-4, rtol=1e-4)
    for b, count in enumerate(counts[-1]):
        assert torch.equal(groups[b].unique(), torch.arange(count + class_token))
        assert torch.equal(size[b] > 0, torch.arange(size.shape[1]) < count + class_token)
    if class_token:
        torch.testing.assert_close(x[:, 0], start[:, 0])


def test_thresholds_at_the_ends_merge_nothing_or_half():
    assert tower(DyMU(thresholds=(1.0,) * 3), 24, 3)[0] == [[24] * 3] * 3
    assert tower(DyMU(thresholds=(-1.0,) * 3), 24, 3)[0] == [[12] * 3, [6] * 3, [3] * 3]
    alike = DyMU(thresholds=(1.0,))
    keys = torch.randn(1, 1, 1, 4).expand(3, 1, 24, 4)
    state = BlockState(torch.randn(3, 24, 8), keys, torch.ones(3, 24), False, 24)
    assert alike.merge(0, 1, state) is None, "though rounding leaves cosines above 1"
    idle = DyMU(thresholds=(-1.0,) * 4, r_total=2, r_schedule="constant")
    assert tower(idle, 24, 4)[0] == [[12] * 3, [6] * 3, [6] * 3, [6] * 3]
    capped = DyMU(thresholds=(-1.0,) * 3, keep=0.5, max_r_per_instance_ratio=0.5)
    assert tower(capped, 24, 3)[0] == [[22] * 3, [20] * 3, [18] * 3]


@settings(deadline=None, max_examples=60)
@given(
    patches=st.integers(1, 80),
    blocks=st.integers(1, 8),
    class_token=st.booleans(),
    keep=st.floats(0.05, 1.0),
    kind=st.sampled_from(["constant", "linear", "reverse_linear"]),
)
def test_without_thresholds_every_picture_has_its_budget(patches, blocks, class_token, keep, kind):
    method = DyMU(keep=keep, r_schedule=kind)
    target = method.count(Grid(1, 1, patches))
    try:
        counts = tower(method, patches, blocks, class_token)[0]
    except BudgetError as error:
        assert "use at least" in str(error) and target < patches / 2**blocks + 1
        return
    assert counts[-1] == [target] * 3


def test_schedules_and_totals():
    assert [c[0] for c in tower(DyMU(keep=0.5), 64, 8)[0]] == [60, 56, 52, 48, 44, 40, 36, 32]
    falling = [c[0] for c in tower(DyMU(r_total=32, r_schedule="linear"), 64, 8)[0]]
    assert falling == [56, 49, 43, 38, 34, 32, 32, 32]
    assert DyMU(r_total=504).count(Grid(1, 24, 24)) == 72
    assert DyMU(keep=0.5).count(Grid(2, 8, 8, (16,) * 5, 8)) == 48
    held = DyMU(keep=0.5, thresholds=(0.5, 0.5), merge_mode="instance_level")
    assert held.count(Grid(1, 8, 8)) == 32 and tower(held, 64, 2)[0][-1] == [32] * 3


def test_what_can_not_be_is_refused(tmp_path):
    for wrong in ({"r_schedule": "x"}, {"merge_mode": "x"}, {"r_total": -1}):
        with pytest.raises(InvalidParameter, match=next(iter(wrong))):
            DyMU(**wrong)
    with pytest.raises(InvalidParameter, match="max_r_per_instance_ratio=0"):
        DyMU(max_r_per_instance_ratio=0)
    with pytest.raises(UnsupportedCall, match="instance_level"):
        DyMU(thresholds=(0.5,)).budget(Grid(1, 8, 8))
    with pytest.raises(BudgetError, match="r_total=64"):
        DyMU(r_total=64).budget(Grid(1, 8, 8))
    with pytest.raises(InvalidParameter, match="1 entries, but 3 blocks"):
        tower(DyMU(thresholds=(0.5,)), 8, 3)
    (tmp_path / "x.json").write_text("{}")
    for path, words in (
        ("x.json", "not the file of a calibrated DyMU"),
        ("no", "there is no file"),
    ):
        with pytest.raises(InvalidParameter, match=words):
            DyMU(thresholds=str(tmp_path / path))


@pytest.fixture(scope="module")
def nano():
    model, processor = foveate.mini("nano")
    pictures = [
        item.image()
        for task in ("I1", "I4")
        for item in foveate.mini.world.items(task, "train", 48)
    ]
    return model, processor, pictures


def counts_of(model, processor, pictures, method) -> Tensor:
    """Tokens (B, blocks + 1) of each picture in front of every block."""
    pixels = processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    with foveate.attach(model, method), torch.no_grad():
        made = model.model.get_image_features(pixel_values=pixels, return_dict=True)
    return torch.tensor([tokens for _, tokens in made["foveate"].tower])


def test_calibrated_thresholds_keep_the_share_on_average(nano, tmp_path):
    model, processor, pictures = nano
    method = DyMU.calibrate(model, processor, pictures, keep=0.5, batch_size=48)
    blocks = len(method.thresholds)
    counts = counts_of(model, processor, pictures, method)
    merged = counts.diff(dim=1)[:, :blocks].neg().float()
    r = torch.tensor([method.planned(i, blocks, 64) for i in range(blocks)]).float()
    assert (merged.mean(0) - r).abs().max() < 0.15 * r.max(), merged.mean(0)
    kept = counts[:, blocks].float()
    assert float(kept.mean()) == pytest.approx(32 + 1, rel=0.04)
    assert kept.std() > 1, "pictures differ"
    text = json.dumps(method.to_dict())
    (tmp_path / "t.json").write_text(text)
    assert from_dict(json.loads(text)) == method
    assert DyMU(thresholds=str(tmp_path / "t.json")) == method


def test_calibration_of_one_batch_merges_r_pairs_per_picture(nano):
    """What was merged while calibrating are r pairs per picture; thresholds of 1 where r is 0."""
    model, processor, pictures = nano
    method = DyMU.calibrate(model, processor, pictures[:8], r_total=3, batch_size=8)
    assert method.thresholds[-1] == 1.0 or len(method.thresholds) == 3
    counts = counts_of(model, processor, pictures[:8], method)
    assert float(counts[:, len(method.thresholds)].float().mean()) == pytest.approx(62, abs=1)
    with pytest.raises(InvalidParameter, match="images has 0 entries"):
        DyMU.calibrate(model, processor, [])


CUTS = (0.2, 0.2)
HOSTS = ["llava", "llava_next", "llava_onevision", "paligemma", "video_llava"]


@pytest.mark.parametrize("name", HOSTS)
def test_pictures_of_a_batch_answer_as_they_do_alone(name):
    model = zoo.model(name)
    samples = [zoo.sample(name, "image", i) for i in (0, 1)]
    cuts = CUTS if name in ("llava", "llava_next", "video_llava") else (*CUTS, 0.2)
    with foveate.attach(model, DyMU(thresholds=cuts)) as att:
        rows = generate(model, zoo.batch(name, samples, padding=2), 4)
        together = att.report
        for i, sample in enumerate(samples):
            single = generate(model, zoo.batch(name, [sample]), 4)
            assert close((rows[0][i : i + 1], rows[1][i : i + 1]), single)
            assert att.report.tokens_out == [together.tokens_out[i]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", HOSTS)
def test_unmerging_what_did_not_merge_is_the_bare_model(name, attention):
    model = zoo.model(name, attention)
    batch = zoo.batch(name, [zoo.sample(name, "image", i) for i in (0, 1)], padding=1)
    bare = generate(model, batch, 4)
    cuts = (1.0,) * (2 if name in ("llava", "llava_next", "video_llava") else 3)
    with foveate.attach(model, DyMU(thresholds=cuts)) as att:
        assert close(generate(model, batch, 4), bare)
        assert att.report.flops == att.report.flops_full


@dataclass(frozen=True)
class Spy(Unmerging):
    """Notes what stands where in layer 0."""

    seen: list = field(default_factory=list, hash=False)

    def attend(self, call, proceed):
        if call.layer == 0 and call.prefill:
            self.seen.append(call.whole())
        return super().attend(call, proceed)


@dataclass(frozen=True, kw_only=True)
class Alone(Method):
    """Nothing but a rule."""

    slug = "alone"
    rule: Spy = field(default_factory=lambda: Spy(DyMU()))

    def parts(self):
        return (self.rule,)


@pytest.mark.parametrize("name", ["llava", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "glm4v"])
def test_a_layer_attends_as_over_the_tokens_written_out(name):
    """Attention of one layer is the mean, per token, of plain attention over all its copies."""
    model, method = zoo.model(name), Alone()
    text, got = model.get_decoder(), {}
    layer = text.layers[0]
    hooks = [
        layer.register_forward_pre_hook(lambda _, args: got.update(hidden=args[0])),
        layer.self_attn.register_forward_hook(lambda _, args, out: got.update(out=out[0])),
    ]
    with (
        foveate.attach(model, foveate.GridPool(keep=0.5, positions="original") + method),
        torch.no_grad(),
    ):
        model(**zoo.batch(name, [zoo.sample(name, "image")]))
    for hook in hooks:
        hook.remove()
    (whole,) = method.rule.seen
    # Newlines of crops are dropped here, and stand nowhere.
    alive = whole.held[0] >= 0
    held, hidden = whole.held[:, alive], got["hidden"]
    assert held.shape[1] > hidden.shape[1]
    written = hidden.gather(1, held[..., None].expand(-1, -1, hidden.shape[2]))
    with torch.no_grad():
        out, _ = layer.self_attn(
            hidden_states=layer.input_layernorm(written),
            position_embeddings=text.rotary_emb(written, whole.positions[..., alive]),
            attention_mask=None,
        )
    expected = averaged(out, held, hidden.shape[1])
    torch.testing.assert_close(got["out"], expected, atol=2e-5, rtol=1e-4)


def shallow():
    """LLaVA with one decoder layer, where copies have no layer to differ in behind it."""
    model = copy.deepcopy(zoo.model("llava"))
    text = model.get_decoder()
    text.layers = text.layers[:1]
    model.config.text_config.num_hidden_layers = text.config.num_hidden_layers = 1
    return model


@pytest.mark.parametrize("padding", [0, 2])
def test_one_layer_decodes_as_over_the_tokens_written_out(padding):
    """Eight steps with a cache as short as the merged prompt, a second turn among them."""
    model = shallow()
    batch = zoo.batch("llava", [zoo.sample("llava", "image", i) for i in (0, 1)], padding)
    merging = DyMU(keep=0.5, repeat_merged_tokens=False)
    with foveate.attach(model, merging), torch.no_grad():
        made = model.model.get_image_features(pixel_values=batch["pixel_values"], return_dict=True)
    embeds = model.get_input_embeddings()(batch["input_ids"])
    visual = batch["input_ids"] == zoo.IMAGE
    embeds[visual] = torch.cat(list(made.pooler_output)).to(embeds.dtype)
    options = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    expected = model.generate(
        inputs_embeds=embeds, attention_mask=batch["attention_mask"], max_new_tokens=8, **options
    )
    with foveate.attach(model, DyMU(keep=0.5)) as att:
        out = model.generate(**batch, max_new_tokens=8, **options)
    assert torch.equal(out.sequences[:, -8:], expected.sequences)
    torch.testing.assert_close(
        torch.stack(out.logits), torch.stack(expected.logits), atol=1e-4, rtol=1e-4
    )
    assert att.report.tokens_out == [8, 8]
    held = out.past_key_values.layers[0].keys.shape[2]
    # The last new token is never fed back.
    assert held == max(att.report.prompt_tokens) + (padding and 0) + 7
    with foveate.attach(model, merging):
        other = model.generate(**batch, max_new_tokens=8, **options)
    assert (other.logits[0] - out.logits[0]).abs().max() > 1e-2, "places matter"


def test_text_behind_the_picture_sees_all_of_it_and_text_before_none():
    model = zoo.model("llava")
    sample = zoo.sample("llava", "image")
    batch = zoo.batch("llava", [sample])
    first = sample.ids.index(zoo.IMAGE)
    logits = []
    with foveate.attach(model, DyMU(keep=0.5)), torch.no_grad():
        for shift in (0.0, 1.0):
            logits.append(model(**{**batch, "pixel_values": batch["pixel_values"] + shift}).logits)
    moved = (logits[0] - logits[1]).abs().amax(-1)[0]
    assert not moved[:first].any() and (moved[first:] > 1e-3).all()


def test_the_cost_of_all_but_attention_pairs_shrinks_with_the_tokens():
    """Llama: 5 layers of width 32, 4 heads of 8 with 2 key heads, feed-forward 64, 128 words."""
    model = zoo.model("llava")
    batch = zoo.batch("llava", [zoo.sample("llava", "image")])
    full = batch["input_ids"].shape[1]
    with foveate.attach(model, DyMU(keep=4)) as att, torch.no_grad():
        model(**batch)
    few, head = full - 12, 2 * 32 * 128
    per_token = 2 * 32 * (32 + 16 + 16 + 32) + 2 * 3 * 32 * 64
    assert att.report.flops == 5 * (few * per_token + 4 * full * full * 32) + head
    assert att.report.flops_full == 5 * (full * per_token + 4 * full * full * 32) + head
    assert att.report.kv_bytes == 5 * few * 2 * 2 * 8 * 4


def test_packed_positions_beside_unmerging_are_refused():
    model = zoo.model("llava")
    batch = zoo.batch("llava", [zoo.sample("llava", "image")])
    method = DyMU(keep=0.5) + foveate.DivPrune(keep=0.5, positions="packed")
    with foveate.attach(model, method), torch.no_grad():
        with pytest.raises(UnsupportedCall, match="positions='original'"):
            model(**batch)
    method = DyMU(keep=0.5) + foveate.DivPrune(keep=0.5, positions="original")
    with foveate.attach(model, method) as att, torch.no_grad():
        assert model(**batch).logits.isfinite().all()
    assert att.report.tokens_out == [4]


@pytest.mark.parametrize("name", ["llava", "video_llava"])
def test_prompts_that_end_with_the_image(name):
    """Their last token is a merged one, which stands for several position ids."""
    model, sample = zoo.model(name), zoo.sample(name, "image")
    batch = zoo.batch(name, [sample])
    visual = batch["input_ids"][0] == zoo.IMAGE
    end = int(visual.nonzero().max()) + 1
    batch |= {key: batch[key][:, :end] for key in ("input_ids", "attention_mask")}
    whole = generate(model, batch, 3)
    with foveate.attach(model, DyMU(keep=1.0)):
        assert close(generate(model, batch, 3), whole)
    with foveate.attach(model, DyMU(keep=0.5)):
        cached = generate(model, batch, 3)
        assert close(generate(model, batch, 3, use_cache=False), cached)
    assert not close(cached, whole)


@pytest.mark.parametrize(
    "parameters", [{}, {"thresholds": (0.5,) * 3, "merge_mode": "instance_level"}, {"r_total": 4}]
)
def test_a_cap_on_what_pictures_may_merge_needs_thresholds(parameters):
    method = DyMU(max_r_per_instance_ratio=0.5, **parameters)
    with pytest.raises(InvalidParameter, match="max_r_per_instance_ratio=0.5 .* thresholds"):
        foveate.attach(zoo.model("llava"), method)
    with pytest.raises(InvalidParameter, match="max_r_per_instance_ratio=0.5 .* thresholds"):
        tower(method, 24, 3)
    foveate.attach(zoo.model("llava"), replace(method, max_r_per_instance_ratio=None)).detach()
