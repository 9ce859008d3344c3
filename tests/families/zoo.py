"""Tiny random models of all families, samples for them, and batches of samples.

Weights are drawn anew: as initialised by the library, attention is almost uniform and every
picture gives the same answer, so that a wrong engine would pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers as hf
from torch import Tensor

IMAGE, VIDEO, START, END, VOCABULARY = 110, 111, 112, 113, 128
WIDTH = 32
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
}
TOWER = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
FINE_TOWER = {**TOWER, "patch_size": 7}
# The bare SmolVLM of transformers 5.19 and 5.20 needs tokens per crop in multiples of its patches.
CROP_TOWER = {**TOWER, "image_size": 64, "patch_size": 8}
BLOCKS = {"depth": 3, "hidden_size": WIDTH, "num_heads": 4, "patch_size": 14}
OUT = {"out_hidden_size": WIDTH, "intermediate_size": 64}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
MARKS = {"image_token_id": IMAGE, "video_token_id": VIDEO}
ENDS = {"vision_start_token_id": START, "vision_end_token_id": END}
TILES = [[56, 112], [112, 56], [112, 112]]

VIDEO_FAMILIES = (
    "llava_next_video",
    "llava_onevision",
    "video_llava",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "video_llama_3",
    "glm4v",
)
FAMILIES = (
    *VIDEO_FAMILIES,
    "llava",
    "llava_next",
    "internvl",
    "idefics3",
    "smolvlm",
    "gemma3",
    "paligemma",
    "fast_vlm",
)
CASES = [(name, "image") for name in FAMILIES] + [(name, "video") for name in VIDEO_FAMILIES]
GRID_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "video_llama_3")
MROPE_FAMILIES = GRID_FAMILIES[:-1]


def _clip():
    return hf.CLIPVisionConfig(**TOWER)


def _siglip(**changes):
    return hf.SiglipVisionConfig(**{**TOWER, **changes}, vision_use_head=False)


def _llama():
    return hf.LlamaConfig(**TEXT)


def _qwen2():
    return hf.Qwen2Config(**TEXT)


def _llava():
    config = hf.LlavaConfig(vision_config=_clip(), text_config=_llama(), image_token_id=IMAGE)
    return hf.LlavaForConditionalGeneration(config)


def _llava_next():
    config = hf.LlavaNextConfig(
        vision_config=_clip(),
        text_config=_llama(),
        image_token_id=IMAGE,
        image_grid_pinpoints=TILES,
    )
    return hf.LlavaNextForConditionalGeneration(config)


def _llava_next_video():
    config = hf.LlavaNextVideoConfig(
        vision_config=_clip(), text_config=_llama(), image_grid_pinpoints=TILES, **MARKS
    )
    return hf.LlavaNextVideoForConditionalGeneration(config)


def _llava_onevision():
    config = hf.LlavaOnevisionConfig(
        vision_config=_siglip(),
        text_config=_qwen2(),
        image_grid_pinpoints=[[56, 56], *TILES],
        **MARKS,
    )
    return hf.LlavaOnevisionForConditionalGeneration(config)


def _video_llava():
    config = hf.VideoLlavaConfig(vision_config=_clip(), text_config=_llama(), **MARKS)
    return hf.VideoLlavaForConditionalGeneration(config)


def _qwen2_vl():
    vision = {**BLOCKS, "embed_dim": WIDTH, "mlp_ratio": 2}
    text = {**TEXT, "rope_parameters": dict(MROPE)}
    config = hf.Qwen2VLConfig(vision_config=vision, text_config=text, **MARKS, **ENDS)
    return hf.Qwen2VLForConditionalGeneration(config)


def _qwen2_5_vl():
    windows = {"depth": 4, "window_size": 56, "fullatt_block_indexes": [1, 3]}
    vision = {**BLOCKS, **OUT, **windows, "tokens_per_second": 2}
    text = {**TEXT, "rope_parameters": dict(MROPE)}
    config = hf.Qwen2_5_VLConfig(vision_config=vision, text_config=text, **MARKS, **ENDS)
    return hf.Qwen2_5_VLForConditionalGeneration(config)


def _qwen3_vl():
    planes = {"depth": 4, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]}
    text = {**TEXT, "head_dim": 8, "rope_parameters": dict(MROPE)}
    config = hf.Qwen3VLConfig(
        vision_config={**BLOCKS, **OUT, **planes}, text_config=text, **MARKS, **ENDS
    )
    return hf.Qwen3VLForConditionalGeneration(config)


def _glm4v():
    rope = {**MROPE, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.5}
    config = hf.Glm4vConfig(
        vision_config={**BLOCKS, **OUT, "image_size": 56},
        text_config={**TEXT, "rope_parameters": rope},
        image_start_token_id=START,
        image_end_token_id=END,
        video_start_token_id=114,
        video_end_token_id=115,
        **MARKS,
    )
    return hf.Glm4vForConditionalGeneration(config)


def _video_llama_3():
    vision = {k: v for k, v in TOWER.items() if k != "image_size"}
    config = hf.VideoLlama3Config(vision_config=vision, text_config=_qwen2(), **MARKS)
    return hf.VideoLlama3ForConditionalGeneration(config)


def _internvl():
    config = hf.InternVLConfig(
        vision_config=dict(FINE_TOWER), text_config=_qwen2(), image_token_id=IMAGE
    )
    return hf.InternVLForConditionalGeneration(config)


def _idefics3():
    config = hf.Idefics3Config(
        vision_config=dict(CROP_TOWER), text_config=_llama(), image_token_id=IMAGE, scale_factor=2
    )
    return hf.Idefics3ForConditionalGeneration(config)


def _smolvlm():
    config = hf.SmolVLMConfig(
        vision_config=dict(CROP_TOWER), text_config=_llama(), image_token_id=IMAGE, scale_factor=2
    )
    return hf.SmolVLMForConditionalGeneration(config)


def _gemma3():
    # A window of 16 is shorter than the prompts, so that sliding layers do slide.
    window = {"sliding_window": 16, "sliding_window_pattern": 2}
    heads = {"head_dim": 8, "query_pre_attn_scalar": 8, "eos_token_id": None}
    config = hf.Gemma3Config(
        vision_config=_siglip(patch_size=7),
        text_config={**TEXT, **heads, **window},
        image_token_id=IMAGE,
        mm_tokens_per_image=16,
        boi_token_index=START,
        eoi_token_index=END,
    )
    return hf.Gemma3ForConditionalGeneration(config)


def _paligemma():
    text = {**TEXT, "model_type": "gemma", "head_dim": 8, "eos_token_id": None}
    config = hf.PaliGemmaConfig(
        vision_config=_siglip(),
        text_config=text,
        image_token_id=IMAGE,
        projection_dim=WIDTH,
        hidden_size=WIDTH,
        vocab_size=VOCABULARY,
    )
    return hf.PaliGemmaForConditionalGeneration(config)


def _fast_vlm():
    # The family's own tower lives in timm; another convolutional one stands in.
    tower = hf.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, WIDTH], depths=[1, 1], layer_type="basic"
    )
    config = hf.FastVlmConfig(vision_config=tower, text_config=_qwen2(), image_token_id=IMAGE)
    config.vision_config.hidden_size = WIDTH
    return hf.FastVlmForConditionalGeneration(config)


@cache
def _built(name: str):
    torch.manual_seed(0)
    model = globals()[f"_{name}"]().eval()
    return redrawn(model, embedding_std=0.2 if "gemma" in name else 1.0)


def redrawn(model, embedding_std: float):
    """The model with weights that tell pictures apart, ready to generate."""
    _redraw(model, embedding_std)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    # A random model does emit placeholders, which no picture would stand behind in a second turn.
    model.generation_config.suppress_tokens = [IMAGE, VIDEO]
    return model


def model(name: str, attention: str = "sdpa"):
    """The tiny model of a family, made once per process, with the attention asked for."""
    built = _built(name)
    # A convolutional tower refuses to be told about attention.
    built.set_attn_implementation({"text_config": attention} if name == "fast_vlm" else attention)
    return built


@torch.no_grad()
def _redraw(model, embedding_std: float) -> None:
    generator = torch.Generator().manual_seed(7)
    for name, p in model.named_parameters():
        if "embed_tokens" in name:
            p.normal_(0, embedding_std, generator=generator)
        elif "newline" in name:
            p.normal_(0, 0.3, generator=generator)
        elif p.dim() >= 2:
            fan_in = p.shape[-1] if p.dim() == 2 else p[0].numel()
            p.normal_(0, 1.2 / fan_in**0.5, generator=generator)


@dataclass(frozen=True)
class Sample:
    """One prompt without padding.

    ids, types: one entry per column; types None where the family has none. inputs: visual
    arguments. items: visual tokens of every visual item, in the order of their columns.
    """

    ids: list[int]
    types: list[int] | None
    inputs: dict[str, Tensor] = field(default_factory=dict)
    items: tuple[int, ...] = ()


def noise(seed: int, *shape: int) -> Tensor:
    """Pixels."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def words(seed: int, count: int) -> list[int]:
    """Ids of text."""
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randint(3, 100, (count,), generator=generator).tolist()


def sample(name: str, modality: str, i: int = 0) -> Sample:
    """Sample i of a family. Samples 0 and 1 differ in length and, where possible, in grid."""
    ids, inputs, items = _visual(name, modality, i)
    before = [] if name == "paligemma" else words(i, 3 + 2 * i)
    return _typed(name, modality, [*before, *ids, *words(i + 9, 6 - i)], inputs, items)


def text_sample(name: str, i: int = 0) -> Sample:
    """A prompt without pictures."""
    return _typed(name, "image", words(i + 30, 7 + i), {}, ())


def _typed(name, modality, ids, inputs, items) -> Sample:
    types = None
    if name == "gemma3":
        types = [int(x == IMAGE) for x in ids]
    elif name == "paligemma":
        types = [0] * len(ids)
    elif name in MROPE_FAMILIES:
        image = 2 if name == "glm4v" and modality == "video" else 1
        types = [{IMAGE: image, VIDEO: 2}.get(x, 0) for x in ids]
    return Sample(ids, types, inputs, tuple(items))


def _visual(name: str, modality: str, i: int) -> tuple[list[int], dict[str, Tensor], list[int]]:
    """Ids from the first to the last visual one, pixel arguments, tokens per item."""
    if name in GRID_FAMILIES:
        return _gridded(name, modality, i)
    if modality == "video":
        tokens = {"llava_next_video": 3 * 4, "llava_onevision": 3 * 4 + 1, "video_llava": 3 * 17}
        n = tokens[name]
        return [VIDEO] * n, {"pixel_values_videos": noise(i, 1, 3, 3, 56, 56)}, [n]
    if name in ("llava_next", "llava_next_video", "llava_onevision"):
        size = [(100, 60), (50, 50) if name == "llava_onevision" else (60, 60)][i]
        inputs = {"pixel_values": noise(i, 1, 5, 3, 56, 56), "image_sizes": torch.tensor([size])}
        with torch.no_grad():
            features = _built(name).get_image_features(**inputs, return_dict=True).pooler_output
        n = len(features[0])
        return [IMAGE] * n, inputs, [n]
    if name in ("idefics3", "smolvlm"):
        crops = (3, 1)[i]
        ids = [x for crop in range(crops) for x in (START, 114 + crop, *[IMAGE] * 16)]
        mask = torch.ones(1, crops, 64, 64, dtype=torch.long)
        inputs = {"pixel_values": noise(i, 1, crops, 3, 64, 64), "pixel_attention_mask": mask}
        return [*ids, START], inputs, [16 * crops]
    side = 32 if name == "fast_vlm" else 56
    inputs = {pixels_name(name): noise(i, 1, 3, side, side)}
    framed = name in ("internvl", "gemma3")
    return [START] * framed + [IMAGE] * 16 + [END] * framed, inputs, [16]


def pixels_name(name: str) -> str:
    """What a model calls its pictures: Video-LLaVA renamed them between versions."""
    taken = inspect.signature(_built(name).model.forward).parameters
    return "pixel_values" if "pixel_values" in taken else "pixel_values_images"


def feature_call(model, modality: str, inputs: dict[str, Any]) -> tuple[Callable, dict[str, Any]]:
    """What encodes a modality, and its arguments of a prompt, under the names of today."""
    call = getattr(model.model, f"get_{modality}_features")
    taken = inspect.signature(call).parameters
    given = {name: value for name, value in inputs.items() if name in taken}
    if "pixel_values_images" not in given:
        return call, given

    def today(pixel_values: Tensor, **others: Any) -> Any:
        return call(pixel_values_images=pixel_values, **others)

    return today, {"pixel_values": given.pop("pixel_values_images"), **given}


def _gridded(name: str, modality: str, i: int):
    t, (h, w) = 1 if modality == "image" else 3, ((4, 8), (6, 4))[i]
    n = h * w // 4
    frames = 1 if name == "video_llama_3" else 2
    suffix = "" if modality == "image" else "_videos"
    inputs = {
        f"pixel_values{suffix}": noise(i, t * h * w, 3 * frames * 14 * 14),
        f"{modality}_grid_thw": torch.tensor([[t, h, w]]),
    }
    if name == "video_llama_3":
        inputs[f"{modality}_merge_sizes"] = torch.tensor([2])
    if modality == "image":
        ids = [START, *[IMAGE] * n, END]
    elif name == "qwen3_vl":
        ids = [x for k in range(t) for x in (60 + k, START, *[VIDEO] * n, END)]
    elif name == "glm4v":
        runs = [x for k in range(t) for x in (START, *[IMAGE] * n, END, 60 + k)]
        ids = [114, *runs, 115]
    else:
        ids = [START, *[VIDEO] * (n * t), END]
    return ids, inputs, [n * t]


def joined(name: str, first: Sample, second: Sample) -> Sample:
    """One prompt with the visual items of both samples."""
    inputs = {**first.inputs, **second.inputs}
    for key in first.inputs.keys() & second.inputs.keys():
        dim = 1 if name in ("idefics3", "smolvlm") else 0
        inputs[key] = torch.cat([first.inputs[key], second.inputs[key]], dim)
    types = None if first.types is None else [*first.types, *second.types]
    items = (*first.items, *second.items)
    if name in ("idefics3", "smolvlm"):
        items = (sum(items),)
    return Sample([*first.ids, *second.ids], types, inputs, items)


def batch(name: str, samples: Sequence[Sample], padding: int = 0) -> dict[str, Any]:
    """The model's arguments for samples side by side, padded on the left."""
    longest = max(len(s.ids) for s in samples) + padding

    def padded(rows: list[list[int]]) -> Tensor:
        return torch.tensor([[0] * (longest - len(row)) + row for row in rows])

    out: dict[str, Any] = {
        "input_ids": padded([s.ids for s in samples]),
        "attention_mask": padded([[1] * len(s.ids) for s in samples]),
    }
    if samples[0].types is not None:
        kind = "mm_token_type_ids" if name in MROPE_FAMILIES else "token_type_ids"
        out[kind] = padded([s.types for s in samples])
    stack: Callable[[list[Tensor]], Tensor] = torch.cat
    if name in ("idefics3", "smolvlm"):
        stack = _stacked
    for key in {key: None for s in samples for key in s.inputs}:
        out[key] = stack([s.inputs[key] for s in samples if key in s.inputs])
    return out


def pair(name: str, modality: str) -> dict[str, Any]:
    """A batch of samples 0 and 1, with a column of padding more than it needs."""
    return batch(name, [sample(name, modality, i) for i in (0, 1)], padding=1)


def _stacked(rows: list[Tensor]) -> Tensor:
    """Crops of samples (1, n, ...) below one another, black ones in the gaps."""
    most = max(row.shape[1] for row in rows)
    return torch.cat(
        [torch.cat([r, r.new_zeros(1, most - r.shape[1], *r.shape[2:])], 1) for r in rows]
    )
