"""Mappings take what else a case of their ops may hold, and nothing goes unread or uncompared."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.conformance.comparing import check_equal
from tests.conformance.conftest import HERE, load_mapping, read_case
from tests.conformance.test_cases import test_case as checked

MAPPING = load_mapping()


def case_of(name: str):
    return read_case(HERE / "cases" / f"{name}.safetensors")


def answer(case, **params):
    """What our functions make of a case with other parameters."""
    return MAPPING[case.method, case.op](case.inputs, case.weights, {**case.params, **params})


def agree(case, **changed):
    """A case holds with other contents."""
    checked(replace(case, **changed), MAPPING)


def twice(x, dim=0):
    return torch.cat([x, x], dim)


def without(values, *prefixes):
    return {k: v for k, v in values.items() if not k.startswith(prefixes)}


def test_unknown_parameters_inputs_and_ops_fail():
    case = case_of("fastv/select")
    with pytest.raises(AssertionError, match="ignores the params .'temperature'"):
        agree(case, params={**case.params, "temperature": 1.0})
    with pytest.raises(AssertionError, match="ignores the inputs .'bias'"):
        agree(case, inputs={**case.inputs, "bias": torch.ones(1)})
    with pytest.raises(ValueError, match="mode='sum' is not mapped"):
        answer(case_of("aim/merge_two_rounds"), mode="sum")
    with pytest.raises(pytest.fail.Exception, match="No function computes"):
        agree(case, op="score")


def test_indices_are_compared_as_integers():
    index = torch.tensor([1, 2])
    check_equal(index.int(), index, 0, "index")
    for wrong in (index.float(), index + torch.tensor([0.2, 0.0]), index.flip(0), index[None]):
        with pytest.raises(AssertionError):
            check_equal(wrong, index, 9, "index")
    with pytest.raises(AssertionError):
        check_equal([1.0], [1], 9, "list")
    with pytest.raises(AssertionError):
        check_equal(None, index, 9, "none")
    check_equal(None, None, 0, "none")
    check_equal(index, index.float() + 0.1, 0.2, "value")


def test_aim_takes_batches_keys_and_rounds_of_any_size():
    case = case_of("aim/merge_two_rounds")
    agree(case, params={**case.params, "rounds": [99, 99]})
    keyed = {**case.inputs, "metric": case.inputs["x"]}
    agree(case, inputs=keyed, params={**case.params, "metric": "metric"})
    x = case.inputs["x"]
    found = answer(case, rounds=[3, 0, 5])
    assert [found[f"round{i}"].shape[1] for i in (1, 2, 3)] == [17, 17, 12]
    first = replace(case, inputs={"x": found["round1"]})
    assert torch.equal(answer(first, rounds=[5])["round1"], found["round3"])
    unlike = replace(case, inputs={"x": x, "metric": x[..., :2]}, params=case.params)
    assert not torch.equal(answer(unlike, metric="metric")["round1"], found["round1"][:, :10])
    score = case_of("aim/score_basic")
    agree(
        score,
        inputs={k: twice(v) for k, v in score.inputs.items()},
        outputs={k: twice(v) for k, v in score.outputs.items()},
    )
    forward = case_of("aim/forward_prefill_decode")
    agree(
        forward,
        inputs={
            "inputs_embeds": twice(forward.inputs["inputs_embeds"]),
            "decode_embeds": twice(forward.inputs["decode_embeds"], 1),
        },
        params={**forward.params, "boundaries": forward.params["boundaries"] * 2},
        outputs={k: twice(v, int(k == "decode_hidden")) for k, v in forward.outputs.items()},
    )


def test_dymu_caps_what_a_picture_merges():
    alone = case_of("dymu/merge_instance_threshold")
    agree(alone, params={**alone.params, "max_r_per_instance": 99})
    assert answer(alone, max_r_per_instance=2)["x"].shape[1] == 17 - 2
    assert answer(alone, r=0)["x"].shape[1] == 17
    whole = case_of("dymu/merge_instance_r")
    assert answer(whole, r=99)["x"].shape[1] == 13 - 6
    agree(whole, params={**whole.params, "max_r_per_instance": 2})
    batch = case_of("dymu/merge_batch_find_threshold")
    found = answer(batch, max_r_per_instance=2)
    assert ((found["size"] > 0).sum(1) >= 13 - 2).all()
    block = case_of("dymu/vit_block_threshold")
    assert answer(block, threshold=None)["x"].shape[1] == 15 - 4


def test_dyvte_runs_without_decoding_and_with_few_gates():
    case = case_of("dyvte/forward_exit1")
    agree(
        case,
        inputs=without(case.inputs, "decode"),
        outputs=without(case.outputs, "decode"),
        weights=without(case.weights, "visual_gates_router.2"),
    )
    stay = {k: torch.zeros_like(v) if "visual_gates" in k else v for k, v in case.weights.items()}
    found = answer(replace(case, weights=stay))
    assert found["cache_len"].tolist() == [620] * 3 and found["exit_layer"].item() == 2


def test_fourier_keeps_any_rectangle():
    case = case_of("fourier_vlm/compress_rect")
    for rows, columns in ((2, 8), (6, 3), (6, 9)):
        found = answer(case, reserve_h=rows, reserve_w=columns)["tokens"]
        x = case.inputs["features"].view(6, 9, 5).movedim(-1, 0)
        spectrum = {"x": x[None]}
        transform = case_of("fourier_vlm/dct2_ortho")
        dct = answer(replace(transform, inputs=spectrum))["dct"][..., :rows, :columns]
        small = answer(replace(transform, inputs={"x": dct}))["idct"][0]
        torch.testing.assert_close(found[0], small.movedim(0, -1).flatten(0, 1))


def test_tome_takes_any_schedules_and_both_special_tokens():
    case = case_of("tome/parse_r")
    expected = {"a": case.outputs["dec"], "b": case.outputs["list"]}
    agree(case, params={"num_layers": 12, "a": [8, -1.0], "b": [5, 4, 3]}, outputs=expected)
    merge = case_of("tome/merge_cls")
    found = answer(merge, distill_token=True)
    assert torch.equal(found["x"][:, :2], merge.inputs["x"][:, :2])
    assert (found["size"][:, :2] == 1).all() and found["x"].shape[1] == 12
    assert torch.equal(answer(merge, r=0)["x"], merge.inputs["x"])
    assert answer(merge, r=99)["x"].shape[1] == 17 - 8
    attend = case_of("tome/prop_attn")
    alone = {"x": attend.inputs["x"]}
    even = {**alone, "size": torch.ones(2, 12, 1)}
    out = [answer(replace(attend, inputs=given))["x"] for given in (alone, even)]
    torch.testing.assert_close(*out)


def test_llavolta_with_windows_of_one_is_the_identity():
    case = case_of("llavolta/pool_s2_b2")
    found = answer(case, stride=1)
    assert torch.equal(found["hidden"], case.inputs["hidden"])
    assert found["position_ids"].tolist() == [list(range(30))] * 2


def test_hired_packs_newlines_and_keeps_all():
    case = case_of("hired/pack_pad")
    newline = torch.full((6,), 7.0)
    packed = answer(replace(case, inputs={**case.inputs, "newline": newline}), newline=True)
    packed, end = packed["packed"], (packed["packed"] == 7).all(1)
    assert torch.equal(packed[~end], case.outputs["packed"])
    # A newline for each row of the unpadded picture, 6 x 600 / 420 of 12 rows and columns.
    assert int(end.sum()) == 12 and end[-1]
    select = case_of("hired/select_two_images")
    assert answer(select, token_budget_rate=1.0)["mask"].all()
    mask = answer(select, alpha=1.0)["mask"]
    assert mask[[0, 5]].all(), "the overview gets all that it can hold"


def test_all_kept_is_the_identity():
    case = case_of("fastv/select")
    found = answer(case, keep=24)
    assert torch.equal(found["hidden"], case.inputs["hidden"])
    drop = case_of("visiondrop/llm_stage")
    assert torch.equal(answer(drop, dominant=20, contextual=0)["hidden"], drop.inputs["hidden"])
    stages = case_of("pyramiddrop/rank_drop_basic")
    assert answer(stages, ratios=[1.0, 1.0, 0.5])["kept"].tolist() == list(range(54))
