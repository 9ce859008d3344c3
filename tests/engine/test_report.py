"""The report says what really happened."""

from __future__ import annotations

import gc
import json
import weakref

import pytest
import torch
import transformers as hf

import foveate
from foveate.engine.clock import Sums
from tests.families import zoo
from tests.families.halves import Half, HalfAt


def run(name: str, method, new_tokens: int = 4, samples=(0,)):
    model = zoo.model(name)
    batch = zoo.batch(name, [zoo.sample(name, "image", i) for i in samples])
    with foveate.attach(model, method) as att:
        assert not att.report and not att.reports
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


# -- what people read


def test_a_report_before_the_first_call_is_empty():
    with foveate.attach(zoo.model("llava"), Half()) as att:
        for empty in (att.report, att.reports):
            assert not empty and str(empty) == "no call yet" and "no call yet" in repr(empty)
            assert json.dumps(empty.to_dict())
            assert empty.retention_ratio == empty.speedup == 1.0
        assert att.report.ttft == att.report.time_per_output_token == 0.0


def test_a_report_prints_as_a_short_table():
    report, _, _ = run("llava", Half() + HalfAt(k=2))
    lines = str(report).splitlines()
    assert lines[0] == repr(Half() + HalfAt(k=2)) and len(lines) <= 9
    rows = {line.split("  ")[0]: line.split() for line in lines}
    assert rows["visual tokens"][-4:] == ["16", "4", "25.0", "%"]
    assert rows["LLM prefill (GFLOPs)"][-4:-2] == ["0.00271", "0.00149"]
    assert rows["KV cache (MB)"][-4:-2] == ["0.0160", "0.00934"]
    text = str(report)
    assert "retention ratio: 25.0 %, mean over layers: 35.0 %" in text
    assert "visual tokens per layer: 0-1: 8, 2-4: 4" in text
    assert f"theoretical prefill speed-up: {report.speedup:.2f}x" in text
    for words in ("time (ms): encode ", "prefill ", "decode ", "TTFT: ", "time per output token: "):
        assert words in text
    assert repr(report).count("\n") == 0 and len(repr(report)) < 200
    html = report._repr_html_()
    assert html.count("<tr>") == 4 and "25.0 %" in html and "<td" in html


def test_figures_of_a_report_by_hand():
    report, _, _ = run("llava", foveate.FastV(k=2, keep=0.25), samples=(0, 1))
    assert report.tokens_by_layer == [[16, 16, 4, 4, 4]] * 2
    assert report.retention_ratio == 0.25
    assert report.mean_retention_ratio == pytest.approx((2 + 3 / 4) / 5)
    assert report.method_flops > 0
    assert report.speedup == report.flops_full / (report.flops + report.method_flops)
    stages = [report.seconds[stage] for stage in ("encode", "select", "prefill")]
    assert report.ttft == sum(stages)
    assert report.time_per_output_token == report.seconds["per_token"]
    data = json.loads(json.dumps(report.to_dict()))
    for name in ("retention_ratio", "mean_retention_ratio", "speedup", "ttft"):
        assert data[name] == getattr(report, name)
    assert data["time_per_output_token"] > 0 and data["peak_memory"] is None


def test_what_a_forward_pass_has_no_time_for_is_zero():
    with foveate.attach(zoo.model("llava"), Half()) as att, torch.no_grad():
        zoo.model("llava")(**zoo.batch("llava", [zoo.sample("llava", "image", 0)]))
    assert "decode" not in att.report.seconds and att.report.time_per_output_token == 0.0
    assert att.report.ttft > 0 and "per output token" not in str(att.report)


def test_a_report_without_visual_tokens_says_so():
    with foveate.attach(zoo.model("llava"), Half()) as att:
        zoo.model("llava").generate(
            **zoo.batch("llava", [zoo.text_sample("llava", 0)]), max_new_tokens=2
        )
    assert att.report and att.report.retention_ratio == att.report.mean_retention_ratio == 1.0
    assert att.report.speedup == 1.0 and att.report.ttft == 0.0
    assert "no visual tokens in this prompt" in str(att.report)


# -- totals over calls


def test_totals_are_sums_over_calls():
    model, reports = zoo.model("llava"), []
    batches = [
        zoo.batch("llava", [zoo.sample("llava", "image", i) for i in (0, 1)]),
        zoo.batch("llava", [zoo.text_sample("llava", 0)]),
        zoo.batch("llava", [zoo.sample("llava", "image", 2)]),
    ]
    with foveate.attach(model, Half() + foveate.FastV(keep=0.5)) as att:
        for batch in batches:
            model.generate(**batch, max_new_tokens=4, do_sample=False)
            reports.append(att.report)
        with torch.no_grad():
            model(**batches[0])
        reports.append(att.report)
        found = att.reports
        assert att.reports == found, "reading changes nothing"
    assert (found.calls, found.prompts, found.items) == (4, 6, 5)
    assert found.tokens_in == 80 and found.tokens_out == 20 and found.retention_ratio == 0.25
    for name in ("flops", "flops_full", "method_flops", "kv_bytes", "kv_bytes_full"):
        assert getattr(found, name) == sum(getattr(r, name) for r in reports) > 0
    assert found.speedup == found.flops_full / (found.flops + found.method_flops)
    for stage in ("encode", "select", "prefill", "decode"):
        expected = sum(r.seconds.get(stage, 0) for r in reports)
        assert found.seconds[stage] == pytest.approx(expected)
    assert found.seconds["per_token"] == pytest.approx(found.seconds["decode"] / 6)
    assert "4 calls, 6 prompts, 5 visual items" in str(found) and "<table>" in found._repr_html_()
    data = json.loads(json.dumps(found.to_dict()))
    assert data["speedup"] == found.speedup and data["retention_ratio"] == 0.25


def test_totals_hold_on_to_one_call_only():
    """Memory stays constant, however many calls there are and whether or not anyone reads."""
    model, prompts = zoo.model("llava"), []
    batch = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    with foveate.attach(model, Half()) as att, torch.no_grad():
        for _ in range(4):
            # The cache holds the prompt as long as it lives itself.
            cache = model(**batch, use_cache=True).past_key_values
            prompts.append(weakref.ref(cache.foveate.prompt))
            del cache
        gc.collect()
        assert [prompt() is None for prompt in prompts] == [True, True, True, False]
        assert att.reports.calls == 4


def test_figures_that_are_unknown_fail_who_reads_them_and_no_call(monkeypatch):
    def unknown(_):
        raise foveate.UnsupportedModel("The FLOPs of a 'new' text model are not known.")

    monkeypatch.setattr("foveate.engine.reporting.DecoderShape.from_config", unknown)
    model, batch = zoo.model("llava"), zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    with foveate.attach(model, Half()) as att:
        for _ in range(2):
            model.generate(**batch, max_new_tokens=2)
        for name in ("report", "reports"):
            with pytest.raises(foveate.UnsupportedModel, match="not known"):
                getattr(att, name)


class Event:
    """A CUDA event that the device has passed or not."""

    def __init__(self, at: float, passed: bool):
        self.at, self.passed, self.asked = at, passed, 0

    def query(self) -> bool:
        self.asked += 1
        return self.passed

    def elapsed_time(self, other: Event) -> float:
        return other.at - self.at


def test_sums_on_a_device_wait_only_when_read(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    sums = Sums()
    for step in range(1000):
        sums.add("decode", Event(step, True), Event(step + 2, True))
    assert len(sums._queue) <= 257 and not waits
    assert sums.seconds() == {"decode": pytest.approx(2.0), "per_token": pytest.approx(0.002)}
    assert len(waits) == 1 and not sums._queue
    sums.add("decode", Event(0, False), Event(1, False))
    assert sums.seconds()["decode"] == pytest.approx(2.001)
