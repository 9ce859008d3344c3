import dataclasses
import re
from types import SimpleNamespace

import pytest
import torch
import transformers as hf
from torch.utils.flop_counter import FlopCounterMode

from foveate.errors import FoveateError, InvalidParameter, UnsupportedModel
from foveate.flops import (
    DecoderShape,
    VisionShape,
    decode_flops,
    kv_bytes,
    prefill_flops,
    vision_flops,
)

# Every size another number, so that no two of them can stand in for each other unseen.
TEXT = dict(
    hidden_size=48,
    intermediate_size=88,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=8,
    vocab_size=131,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
MROPE = dict(
    TEXT,
    rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
)
GLM_TEXT = dict(
    TEXT,
    rope_parameters={
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [1, 1, 0],
        "partial_rotary_factor": 0.5,
    },
)
TOWER = dict(hidden_size=24, intermediate_size=56, num_hidden_layers=2, num_attention_heads=2)
QWEN_TOWER = dict(depth=2, num_heads=2, patch_size=14)
PINPOINTS = [[56, 112], [112, 56], [112, 112]]


def llama():
    return hf.LlamaConfig(**TEXT)


def qwen2():
    return hf.Qwen2Config(**{k: v for k, v in TEXT.items() if k != "head_dim"})


def clip():
    return hf.CLIPVisionConfig(**TOWER, image_size=56, patch_size=14)


def siglip(patch=14):
    return hf.SiglipVisionConfig(**TOWER, image_size=56, patch_size=patch, vision_use_head=False)


def resnet():
    config = hf.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic"
    )
    config.hidden_size = 32
    return config


def patch7():
    return dict(TOWER, image_size=56, patch_size=7)


FAMILIES = {
    "llava": lambda: hf.LlavaConfig(vision_config=clip(), text_config=llama(), image_token_id=110),
    "llava_next": lambda: hf.LlavaNextConfig(
        vision_config=clip(), text_config=llama(), image_grid_pinpoints=PINPOINTS
    ),
    "llava_next_video": lambda: hf.LlavaNextVideoConfig(
        vision_config=clip(), text_config=llama(), image_grid_pinpoints=PINPOINTS
    ),
    "llava_onevision": lambda: hf.LlavaOnevisionConfig(
        vision_config=siglip(), text_config=qwen2(), image_grid_pinpoints=PINPOINTS
    ),
    "video_llava": lambda: hf.VideoLlavaConfig(vision_config=clip(), text_config=llama()),
    "qwen2_vl": lambda: hf.Qwen2VLConfig(
        vision_config=dict(QWEN_TOWER, embed_dim=24, hidden_size=48, mlp_ratio=3),
        text_config=MROPE,
    ),
    "qwen2_5_vl": lambda: hf.Qwen2_5_VLConfig(
        vision_config=dict(
            QWEN_TOWER,
            hidden_size=24,
            out_hidden_size=48,
            intermediate_size=56,
            window_size=56,
            fullatt_block_indexes=[1],
        ),
        text_config=MROPE,
    ),
    "qwen3_vl": lambda: hf.Qwen3VLConfig(
        vision_config=dict(
            QWEN_TOWER,
            hidden_size=24,
            out_hidden_size=48,
            intermediate_size=56,
            num_position_embeddings=64,
            deepstack_visual_indexes=[0],
        ),
        text_config=MROPE,
    ),
    "internvl": lambda: hf.InternVLConfig(vision_config=patch7(), text_config=qwen2()),
    "idefics3": lambda: hf.Idefics3Config(
        vision_config=patch7(), text_config=llama(), scale_factor=2
    ),
    "smolvlm": lambda: hf.SmolVLMConfig(
        vision_config=patch7(), text_config=llama(), scale_factor=2
    ),
    "gemma3": lambda: hf.Gemma3Config(
        vision_config=siglip(7),
        text_config=dict(
            TEXT, query_pre_attn_scalar=8, sliding_window=10, sliding_window_pattern=2
        ),
        mm_tokens_per_image=16,
    ),
    "paligemma": lambda: hf.PaliGemmaConfig(
        vision_config=siglip(),
        text_config=dict(TEXT, model_type="gemma"),
        projection_dim=48,
        hidden_size=48,
    ),
    "fast_vlm": lambda: hf.FastVlmConfig(vision_config=resnet(), text_config=qwen2()),
    "video_llama_3": lambda: hf.VideoLlama3Config(
        vision_config=dict(TOWER, patch_size=14), text_config=qwen2()
    ),
    "glm4v": lambda: hf.Glm4vConfig(
        vision_config=dict(
            QWEN_TOWER, hidden_size=24, out_hidden_size=48, intermediate_size=72, image_size=56
        ),
        text_config=GLM_TEXT,
    ),
}
TOWERS = sorted(set(FAMILIES) - {"fast_vlm"})
SHAPE = DecoderShape.from_config(llama())
FULL = (None, None, None)


def inner_model(family):
    config = FAMILIES[family]()
    # A ResNet stand-in refuses to name an attention function: only the text side has one there.
    attention = {"text_config": "eager"} if family == "fast_vlm" else "eager"
    return hf.AutoModel.from_config(config, attn_implementation=attention).eval()


def counted(run):
    """The flop counter's counts by module of one call of `run`, with the total under "Global"."""
    with torch.no_grad(), FlopCounterMode(display=False, depth=None) as counter:
        run()
    return {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}


def pixels_of(family):
    """Inputs of one picture, and how many (patches, tokens in the blocks) it makes."""
    if family in {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v"}:
        return dict(
            pixel_values=torch.randn(32, 3 * 2 * 14 * 14), image_grid_thw=torch.tensor([[1, 4, 8]])
        ), (32, 32)
    if family == "video_llama_3":
        return dict(
            pixel_values=torch.randn(32, 3 * 14 * 14),
            image_grid_thw=torch.tensor([[1, 4, 8]]),
            image_merge_sizes=torch.tensor([2]),
        ), (32, 32)
    if family in {"idefics3", "smolvlm"}:
        return dict(pixel_values=torch.randn(1, 1, 3, 56, 56)), (64, 64)
    if family in {"llava_next", "llava_next_video", "llava_onevision"}:
        sizes = torch.tensor([[56, 112]])
        inputs = dict(pixel_values=torch.randn(1, 3, 3, 56, 56), image_sizes=sizes)
    else:
        inputs = dict(pixel_values=torch.randn(1, 3, 56, 56))
    tokens = {"gemma3": (64, 64), "internvl": (64, 65), "paligemma": (16, 16)}
    return inputs, tokens.get(family, (16, 16) if family == "llava_onevision" else (16, 17))


def test_shape_of_a_decoder():
    assert SHAPE == DecoderShape(
        layers=3,
        hidden=48,
        heads=6,
        kv_heads=2,
        head_dim=8,
        intermediate=88,
        gated=True,
        vocab=131,
        windows=FULL,
    )


def test_prefill_by_hand():
    # One layer of 5 tokens, multiply-adds: q and o 48x48, k and v 48x16, gate, up and down 48x88,
    # scores and values 5x5 over 48 channels.
    projections = 5 * (48 * 48 + 48 * 16 + 48 * 16 + 48 * 48)
    attention = 5 * 5 * 48 + 5 * 5 * 48
    mlp = 5 * (48 * 88 + 48 * 88 + 88 * 48)
    layer = 2 * (projections + attention + mlp)
    assert prefill_flops(SHAPE, 5, lm_head=False) == 3 * layer
    assert prefill_flops(SHAPE, 5) == 3 * layer + 2 * 48 * 131

    causal_pairs = 1 + 2 + 3 + 4 + 5
    causal = 2 * (projections + 2 * causal_pairs * 48 + mlp)
    assert prefill_flops(SHAPE, 5, causal=True, lm_head=False) == 3 * causal


def test_prefill_is_twice_the_formula_of_the_papers():
    # 4nd² + 2n²d + 3ndm of a 7B LLaVA-1.5 with all 576 visual tokens and 64 of text.
    shape = DecoderShape.from_config(
        hf.LlamaConfig(
            hidden_size=4096,
            intermediate_size=11008,
            num_hidden_layers=32,
            num_attention_heads=32,
            vocab_size=32064,
        )
    )
    n, d, m = 640, 4096, 11008
    formula = 32 * (4 * n * d * d + 2 * n * n * d + 3 * n * d * m)
    assert prefill_flops(shape, n, lm_head=False) == 2 * formula


def test_prefill_of_a_schedule_is_the_sum_of_its_layers():
    layer = dataclasses.replace(SHAPE, layers=1, windows=(None,))
    lengths = [20, 20, 7]
    one_by_one = sum(prefill_flops(layer, n, lm_head=False) for n in lengths)
    assert prefill_flops(SHAPE, lengths, lm_head=False) == one_by_one
    assert prefill_flops(SHAPE, [9, 9, 9]) == prefill_flops(SHAPE, 9)


def test_mlp_without_gate_has_two_matrices():
    ungated = dataclasses.replace(SHAPE, gated=False)
    saved = 3 * 5 * 2 * 48 * 88
    assert prefill_flops(SHAPE, 5) - prefill_flops(ungated, 5) == saved


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 11])
def test_window_pairs_against_a_mask(n, causal):
    windowed = dataclasses.replace(SHAPE, windows=(4, 4, 4))
    i, j = torch.arange(n)[:, None], torch.arange(n)[None]
    seen = (j <= i) & (j > i - 4)
    pairs = int(seen.sum()) if causal else n * min(n, 4)
    rest = prefill_flops(SHAPE, n) - 3 * 4 * 48 * n * n
    assert prefill_flops(windowed, n, causal=causal) == rest + 3 * 4 * 48 * pairs


def test_decode_by_hand():
    # One token over 5 held ones: 6 keys, itself included.
    token = 2 * (2 * 48 * 48 + 2 * 48 * 16 + 3 * 48 * 88)
    assert decode_flops(SHAPE, 5, lm_head=False) == 3 * (token + 2 * 2 * 6 * 48)
    assert decode_flops(SHAPE, 5) == 3 * (token + 2 * 2 * 6 * 48) + 2 * 48 * 131
    windowed = dataclasses.replace(SHAPE, windows=(4, 4, None))
    assert decode_flops(windowed, 5, lm_head=False) == 3 * token + 2 * 2 * (4 + 4 + 6) * 48


def test_prefill_and_decode_meet():
    causal = prefill_flops(SHAPE, 8, causal=True, lm_head=False)
    steps = [decode_flops(SHAPE, n, lm_head=False) for n in range(8)]
    assert causal == sum(steps)


def test_kv_bytes_by_hand():
    # Keys and values, 3 layers, 5 tokens, 2 heads of 8 channels, 2 bytes each.
    assert kv_bytes(SHAPE, 5) == 2 * 3 * 5 * 2 * 8 * 2
    assert kv_bytes(SHAPE, [5, 5, 2], 4) == 2 * (5 + 5 + 2) * 2 * 8 * 4
    assert kv_bytes(SHAPE, 5, 0.5) == 2 * 3 * 5 * 2 * 8 // 2
    assert kv_bytes(SHAPE, 0) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_decoder_agrees_with_the_flop_counter(family):
    decoder = inner_model(family).get_decoder()
    shape = DecoderShape.from_config(FAMILIES[family]())
    inputs = torch.randn(1, 13, 48)
    mask = torch.ones(1, 13, dtype=torch.long)
    total = counted(lambda: decoder(inputs_embeds=inputs, attention_mask=mask))["Global"]
    # Eager attention computes the whole square and masks it, in windowed layers too.
    assert total == prefill_flops(dataclasses.replace(shape, windows=FULL), 13, lm_head=False)


def test_parts_agree_with_the_flop_counter():
    model = hf.LlamaForCausalLM._from_config(llama(), attn_implementation="eager").eval()
    ids = torch.randint(3, 100, (1, 13))
    counts = counted(lambda: model(ids, logits_to_keep=1))
    layer = "LlamaForCausalLM.model.layers.0"
    assert counts[f"{layer}.self_attn.q_proj"] == 13 * 2 * 48 * 48
    assert counts[f"{layer}.self_attn.k_proj"] == 13 * 2 * 48 * 16
    assert counts[f"{layer}.mlp"] == 13 * 3 * 2 * 48 * 88
    assert counts["LlamaForCausalLM.lm_head"] == 2 * 48 * 131
    assert counts["Global"] == prefill_flops(SHAPE, 13)


def test_decode_agrees_with_the_flop_counter():
    model = hf.LlamaForCausalLM._from_config(llama(), attn_implementation="eager").eval()
    with torch.no_grad():
        cache = model(torch.randint(3, 100, (1, 13)), use_cache=True).past_key_values
    step = counted(lambda: model(torch.tensor([[5]]), past_key_values=cache))
    assert step["Global"] == decode_flops(SHAPE, 13)


@pytest.mark.parametrize("family", ["llava", "gemma3"])
@pytest.mark.parametrize("n", [6, 13])
def test_kv_bytes_agree_with_the_cache(family, n):
    decoder = inner_model(family).get_decoder()
    with torch.no_grad():
        cache = decoder(inputs_embeds=torch.randn(1, n, 48), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == kv_bytes(DecoderShape.from_config(FAMILIES[family]()), n, 4)


@pytest.mark.parametrize("family", TOWERS)
def test_tower_agrees_with_the_flop_counter(family):
    model = inner_model(family)
    shape = VisionShape.from_config(FAMILIES[family]())
    inputs, (patches, tokens) = pixels_of(family)
    counts = counted(lambda: model.get_image_features(**inputs))
    blocks = sum(
        count
        for name, count in counts.items()
        if re.fullmatch(r"\w+\.(blocks|encoder\.layers?)\.\d+", name)
    )
    embedding = sum(
        count
        for name, count in counts.items()
        if re.fullmatch(r"\w+\.(embeddings|patch_embed)", name)
    )
    pictures = 3 if family in {"llava_next", "llava_next_video", "llava_onevision"} else 1
    assert blocks == pictures * vision_flops(shape, tokens)
    assert blocks + embedding == pictures * vision_flops(shape, tokens, patches=patches)


def test_vision_by_hand():
    # CLIP with 16 patches and a CLS token in two layers, the second one after a merge to 9.
    shape = VisionShape.from_config(clip())
    first = 17 * (4 * 24 * 24 + 2 * 24 * 56) + 2 * 17 * 17 * 24
    second = 9 * (4 * 24 * 24 + 2 * 24 * 56) + 2 * 9 * 9 * 24
    assert vision_flops(shape, [17, 9]) == 2 * (first + second)
    embedding = 16 * 24 * 3 * 14 * 14
    assert vision_flops(shape, [17, 9], patches=16) == 2 * (first + second + embedding)


def test_windows_of_qwen2_5_vl():
    shape = VisionShape.from_config(FAMILIES["qwen2_5_vl"]())
    # Windows of 56 pixels hold 4 x 4 patches of 14; block 1 sees the whole picture.
    assert shape.windows == (16, None)
    token = 4 * 24 * 24 + 3 * 24 * 56
    pairs = 48 * 16 + 48 * 48
    assert vision_flops(shape, 48) == 2 * (2 * 48 * token + 2 * pairs * 24)


def test_windows_of_gemma3():
    shape = DecoderShape.from_config(FAMILIES["gemma3"]())
    assert shape.windows == (10, None, 10)


def test_window_of_a_model_without_layer_types():
    config = hf.MistralConfig(**TEXT, sliding_window=7)
    assert DecoderShape.from_config(config).windows == (7, 7, 7)


def test_a_tower_of_its_own_is_as_good_as_the_vlm():
    config = FAMILIES["qwen3_vl"]()
    assert VisionShape.from_config(config.vision_config) == VisionShape.from_config(config)
    assert DecoderShape.from_config(config.text_config) == DecoderShape.from_config(config)


@pytest.mark.parametrize("config", [resnet(), FAMILIES["fast_vlm"](), llama()])
def test_no_guess_for_other_towers(config):
    assert VisionShape.from_config(config) is None


@pytest.mark.parametrize("config", [hf.DeepseekV3Config(), hf.MambaConfig(), clip()])
def test_no_guess_for_other_decoders(config):
    with pytest.raises(UnsupportedModel, match=config.model_type):
        DecoderShape.from_config(config)


def test_errors():
    with pytest.raises(UnsupportedModel, match="SimpleNamespace"):
        DecoderShape.from_config(SimpleNamespace(hidden_size=8))
    with pytest.raises(InvalidParameter, match="2 values for 3 layers"):
        prefill_flops(SHAPE, [1, 2])
    with pytest.raises(InvalidParameter, match="-1"):
        kv_bytes(SHAPE, -1)
    with pytest.raises(InvalidParameter, match="dtype_bytes"):
        kv_bytes(SHAPE, 1, 0)
    with pytest.raises(FoveateError):
        vision_flops(VisionShape.from_config(clip()), [17])


MIXTURES = {
    "mixtral": (hf.MixtralConfig, {"num_local_experts": 4}),
    "qwen3_moe": (hf.Qwen3MoeConfig, {"head_dim": 8, "mlp_only_layers": [1]}),
    "qwen2_moe": (
        hf.Qwen2MoeConfig,
        {"shared_expert_intermediate_size": 24, "decoder_sparse_step": 2},
    ),
}


@pytest.mark.parametrize("kind", MIXTURES)
def test_mixtures_count_the_experts_that_a_token_runs_through(kind):
    made, changes = MIXTURES[kind]
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "vocab_size": 128}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    if kind != "mixtral":
        changes = {**changes, "moe_intermediate_size": 16, "num_experts": 8}
    config = made(**sizes, **heads, **changes, num_experts_per_tok=2)
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    # The counter knows no grouped products.
    model.config._experts_implementation = "eager"
    ids = torch.arange(9)[None]
    real = counted(lambda: model(ids, logits_to_keep=1))["Global"]
    assert prefill_flops(DecoderShape.from_config(config), 9) == real
