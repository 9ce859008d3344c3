"""The report says what really happened."""

from __future__ import annotations

import json

import pytest
import torch
import transformers as hf

import foveate
from tests.families import zoo
from tests.families.halves import Half, HalfAt


def run(name: str, method, new_tokens: int = 4, samples=(0,)):
    model = zoo.model(name)
    batch = zoo.batch(name, [zoo.sample(name, "image", i) for i in samples])
    with foveate.attach(model, method) as att:
        assert att.report is None
        out = model.generate(
            **batch, max_new_tokens=new_tokens, do_sample=False, return_dict_in_generate=True
        )
        return att.report, out, batch


def test_tokens_and_kept_slots():
    report, _, batch = run("llava", Half(), samples=(0, 1))
    assert report.tokens_in == [16, 16] and report.tokens_out == [8, 8]
    assert [k.tolist() for k in report.kept] == [list(range(0, 16, 2))] * 2
    assert report.tokens_by_layer == [[8] * 5] * 2
    lengths = batch["attention_mask"].sum(1).tolist()
    assert report.prompt_tokens == [n - 8 for n in lengths]
    assert [t.assign.tolist()[:4] for t in report.traces] == [[0, -1, 1, -1]] * 2


def test_layers_of_a_staircase():
    report, out, _ = run("llava", Half() + HalfAt(k=2))
    assert report.tokens_by_layer == [[8, 8, 4, 4, 4]]
    assert report.tokens_out == [4] and report.kept[0].tolist() == [0, 4, 8, 12]
    trace = report.traces[0]
    assert (trace.assign >= 0).nonzero()[:, 0].tolist() == [0, 4, 8, 12]
    held = [layer.keys.shape[2] for layer in out.past_key_values.layers]
    # The last new token is never fed back.
    text = report.prompt_tokens[0] - 8
    assert held == [text + n + 3 for n in report.tokens_by_layer[0]]


def test_trace_says_which_tokens_each_layer_processes():
    report, _, _ = run("llava", Half() + HalfAt(k=2) + HalfAt(k=4))
    first, second, third = report.traces[0].by_layer
    assert [(s.first, s.last, s.tokens) for s in (first, second, third)] == [
        (0, 1, 8),
        (2, 3, 4),
        (4, 4, 2),
    ]
    held = [(s.assign >= 0).nonzero()[:, 0].tolist() for s in (first, second, third)]
    assert held == [list(range(0, 16, 2)), [0, 4, 8, 12], [0, 8]]
    assert torch.equal(third.assign, report.traces[0].assign)


def test_trace_says_which_tokens_skip_a_layer():
    method = foveate.VideoLLMMoD(selector="uniform", keep_ratio=0.25)
    report, _, _ = run("llava", method)
    spans = report.traces[0].by_layer
    assert [(s.first, s.last, s.tokens) for s in spans] == [
        (0, 0, 16),
        (1, 1, 4),
        (2, 2, 16),
        (3, 3, 4),
        (4, 4, 16),
    ]
    assert int((spans[1].assign >= 0).sum()) == 4 and int((spans[2].assign >= 0).sum()) == 16


def test_layers_after_a_merge_hold_the_slots_of_merged_tokens():
    report, _, _ = run("llava", foveate.LLaVolta(keep=0.25))
    *_, last = report.traces[0].by_layer
    assert last.tokens == 4 and torch.bincount(last.assign).tolist() == [4, 4, 4, 4]


def test_flops_and_cache_bytes_by_hand():
    """Llama: 5 layers of width 32, 4 heads of 8 with 2 key heads, feed-forward 64, 128 words."""
    report, _, batch = run("llava", HalfAt(k=2))
    full = batch["input_ids"].shape[1]

    def layer(n: int) -> int:
        projections = 2 * n * 32 * (32 + 16 + 16 + 32)
        return projections + 4 * n * n * 32 + 2 * n * 3 * 32 * 64

    head = 2 * 32 * 128
    assert report.flops_full == 5 * layer(full) + head
    assert report.flops == 2 * layer(full) + 3 * layer(full - 8) + head
    assert report.kv_bytes_full == 5 * full * 2 * 2 * 8 * 4
    assert report.kv_bytes == (2 * full + 3 * (full - 8)) * 2 * 2 * 8 * 4


def test_seconds_per_stage():
    report, _, _ = run("llava", Half(), new_tokens=5)
    assert set(report.seconds) == {"encode", "select", "prefill", "decode", "per_token"}
    assert all(s > 0 for s in report.seconds.values())
    assert report.seconds["decode"] == pytest.approx(4 * report.seconds["per_token"])


@pytest.mark.parametrize("name", ["qwen3_vl", "idefics3", "llava_next"])
def test_to_dict_is_plain(name):
    report, _, _ = run(name, Half())
    data = json.loads(json.dumps(report.to_dict()))
    assert data["tokens_in"] == report.tokens_in and data["method"] == repr(Half())
    assert data["kept"] == [k.tolist() for k in report.kept]


def test_beams_report_each_picture_once():
    model = zoo.model("llava")
    batch = zoo.batch("llava", [zoo.sample("llava", "image", i) for i in (0, 1)])
    with foveate.attach(model, Half()) as att:
        model.generate(**batch, max_new_tokens=2, num_beams=3)
    assert att.report.tokens_in == [16, 16]


def test_merged_tokens_are_traced_to_their_sources():
    report, _, _ = run("llava", foveate.GridPool(keep=4))
    trace = report.traces[0]
    assert trace.size.tolist() == [4.0] * 4
    blocks = trace.assign.view(4, 4)
    assert torch.equal(blocks[:2, :2], torch.zeros(2, 2, dtype=torch.long))
    assert torch.equal(blocks[2:, 2:], torch.full((2, 2), 3))


def test_what_the_tower_and_choosing_cost_by_hand():
    """CLIP: 3 blocks of width 32, 4 heads, feed-forward 64, 16 patches of 14 x 14, a class row."""
    report, _, _ = run("llava", foveate.FasterVLM(keep=4) + foveate.PyramidDrop(keep=0.5))
    n = 17
    block = 4 * 2 * n * 32 * 32 + 4 * n * n * 32 + 2 * 2 * n * 32 * 64
    assert report.vision_flops == 3 * block + 16 * 2 * 3 * 14 * 14 * 32
    text = report.prompt_tokens[0] - 4
    columns = [text + tokens for tokens in report.tokens_by_layer[0]]
    # Five layers: boundaries 1, 2, 3; each needs the keys of all columns and one row of products.
    drops = [k for k in (1, 2, 3) if columns[k] < columns[k - 1]]
    ranking = sum(2 * columns[k - 1] * 16 * 32 + 2 * columns[k - 1] * 32 for k in drops)
    assert drops and report.method_flops == 2 * 16 * 32 + ranking


def test_merging_makes_the_tower_cheaper():
    bare, _, _ = run("llava", Half())
    merged, _, _ = run("llava", foveate.ToMe(keep=0.5))
    assert merged.vision_flops < bare.vision_flops
    assert merged.method_flops > 0
    assert run("fast_vlm", Half())[0].vision_flops is None


def test_the_tower_counts_the_patches_that_unpadding_cuts_away():
    """LLaVA-NeXT: 100 x 60 pixels are an overview and 2 x 2 crops, all of 16 patches."""
    one, _, _ = run("llava", Half())
    tiled, _, _ = run("llava_next", Half())
    assert len(tiled.traces[0].layout.grid.views) == 5
    assert tiled.vision_flops == 5 * one.vision_flops


def test_a_prompt_of_text_has_a_report_of_its_own():
    model = zoo.model("llava")
    picture = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    texts = [zoo.text_sample("llava", i) for i in (0, 1)]
    words = zoo.batch("llava", texts)
    with foveate.attach(model, Half() + HalfAt()) as att:
        model.generate(**picture, max_new_tokens=2)
        assert att.report.tokens_in == [16]
        model.generate(**words, max_new_tokens=3)
        report = att.report
    assert report.tokens_in == report.tokens_out == report.kept == report.traces == []
    assert report.prompt_tokens == [len(t.ids) for t in texts]
    assert report.flops == report.flops_full > 0 and report.method_flops == 0
    assert report.kv_bytes == report.kv_bytes_full == 5 * sum(report.prompt_tokens) * 2 * 2 * 8 * 4
    assert report.seconds == {} and json.dumps(report.to_dict())


@pytest.mark.parametrize("merged", [True, False])
def test_embeddings_without_ids_are_refused(merged):
    """Nothing tells merged visual tokens from words, so neither is run as if it were text."""
    model = zoo.model("llava")
    batch = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    with torch.no_grad():
        rows = model.get_input_embeddings()(batch["input_ids"])
        if merged:
            features = torch.cat(
                list(model.get_image_features(batch["pixel_values"]).pooler_output)
            )
            rows[batch["input_ids"] == zoo.IMAGE] = features.view(-1, rows.shape[-1])
    with foveate.attach(model, Half()), torch.no_grad():
        with pytest.raises(foveate.UnsupportedCall, match="pass input_ids"):
            model(inputs_embeds=rows)
        with pytest.raises(foveate.UnsupportedCall, match="pass input_ids"):
            model.generate(inputs_embeds=rows, max_new_tokens=2)


def test_a_mixture_of_experts_has_a_report():
    experts = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
    text = hf.Qwen3MoeConfig(**zoo.TEXT, head_dim=8, **experts)
    config = hf.LlavaConfig(
        vision_config=zoo.model("llava").config.vision_config,
        text_config=text,
        image_token_id=zoo.IMAGE,
    )
    model = hf.LlavaForConditionalGeneration(config).eval()
    batch = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    with foveate.attach(model, Half()) as att, torch.no_grad():
        model(**batch)
    assert att.report.tokens_out == [8] and 0 < att.report.flops < att.report.flops_full
