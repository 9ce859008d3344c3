"""Folders of all families as `save_pretrained` writes them: a tiny random model, its processor's
settings, a tokenizer of characters. Without torchvision the processors themselves can't be saved.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from foveate.mini.weights_loading import silent_bars
from tests.families import zoo

CHARACTERS = [*map(chr, range(32, 127)), "\n"]
QWEN = ("<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_ENDS = ("<|vision_start|>", "<|vision_end|>")
LLAVA = ("<image>", "<image>", "<video>")
SQUARE = {"size": {"height": 56, "width": 56}}
CROPPED = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
SPLIT = {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}}
GRID = {"size": {"shortest_edge": 56 * 56, "longest_edge": 84 * 84}, "patch_size": 14}
SMALL = {"num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
PATCH = {"patch_size": 14, **SMALL}
MARKED = ("<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
TILE_MARKS = tuple(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2))

# Per family the processor, its image processor with settings, its own settings, what stands for a
# picture in the chat template, the placeholders, and other special tokens.
FAMILIES: dict[str, tuple[str, str, dict, dict, tuple[str, str, str], tuple[str, ...]]] = {
    "llava": ("LlavaProcessor", "CLIPImageProcessor", CROPPED, PATCH, LLAVA, ()),
    "llava_next": (
        "LlavaNextProcessor",
        "LlavaNextImageProcessor",
        {**CROPPED, "image_grid_pinpoints": zoo.TILES},
        PATCH,
        LLAVA,
        (),
    ),
    "llava_next_video": (
        "LlavaNextVideoProcessor",
        "LlavaNextImageProcessor",
        {**CROPPED, "image_grid_pinpoints": zoo.TILES},
        PATCH,
        LLAVA,
        (),
    ),
    "llava_onevision": (
        "LlavaOnevisionProcessor",
        "LlavaOnevisionImageProcessor",
        {**SQUARE, "image_grid_pinpoints": [[56, 56], *zoo.TILES]},
        {"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
        LLAVA,
        (),
    ),
    "video_llava": ("VideoLlavaProcessor", "VideoLlavaImageProcessor", CROPPED, PATCH, LLAVA, ()),
    "qwen2_vl": ("Qwen2VLProcessor", "Qwen2VLImageProcessor", GRID, {}, QWEN, QWEN_ENDS),
    "qwen2_5_vl": ("Qwen2_5_VLProcessor", "Qwen2VLImageProcessor", GRID, {}, QWEN, QWEN_ENDS),
    "qwen3_vl": ("Qwen3VLProcessor", "Qwen2VLImageProcessor", GRID, {}, QWEN, QWEN_ENDS),
    "glm4v": (
        "Glm4vProcessor",
        "Glm4vImageProcessor",
        GRID,
        {},
        ("<|begin_of_image|><|image|><|end_of_image|>", "<|image|>", "<|video|>"),
        ("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
    ),
    "video_llama_3": (
        "VideoLlama3Processor",
        "VideoLlama3ImageProcessor",
        GRID,
        {},
        ("<|image_pad|>", "<|image_pad|>", "<|video_pad|>"),
        (),
    ),
    "internvl": (
        "InternVLProcessor",
        "GotOcr2ImageProcessor",
        SQUARE,
        {"image_seq_length": 16},
        ("<IMG_CONTEXT>", "<IMG_CONTEXT>", "<video>"),
        ("<img>", "</img>"),
    ),
    "idefics3": (
        "Idefics3Processor",
        "Idefics3ImageProcessor",
        SPLIT,
        {"image_seq_len": 16},
        LLAVA,
        (*MARKED, *TILE_MARKS),
    ),
    "smolvlm": (
        "SmolVLMProcessor",
        "SmolVLMImageProcessor",
        SPLIT,
        {"image_seq_len": 16},
        LLAVA,
        (*MARKED, *TILE_MARKS),
    ),
    "gemma3": (
        "Gemma3Processor",
        "Gemma3ImageProcessor",
        SQUARE,
        {"image_seq_length": 16},
        ("<start_of_image>", "<image_soft_token>", "<video>"),
        ("<start_of_image>", "<end_of_image>"),
    ),
    "paligemma": (
        "PaliGemmaProcessor",
        "SiglipImageProcessor",
        {**SQUARE, "image_seq_length": 16},
        {},
        LLAVA,
        (),
    ),
    "fast_vlm": (
        "LlavaProcessor",
        "CLIPImageProcessor",
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
        {**PATCH, "patch_size": 8},
        LLAVA,
        (),
    ),
}
# Attributes by which some processors ask their tokenizer for special tokens.
NAMED = {
    "internvl": {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    },
    "gemma3": {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    },
    "paligemma": {"image_token": "<image>"},
}
VIDEO = {
    "llava_next_video": "LlavaNextVideoVideoProcessor",
    "llava_onevision": "LlavaOnevisionVideoProcessor",
    "video_llava": "VideoLlavaVideoProcessor",
    "qwen2_vl": "Qwen2VLVideoProcessor",
    "qwen2_5_vl": "Qwen2VLVideoProcessor",
    "qwen3_vl": "Qwen3VLVideoProcessor",
    "glm4v": "Glm4vVideoProcessor",
    "video_llama_3": "VideoLlama3VideoProcessor",
    "internvl": "InternVLVideoProcessor",
    "smolvlm": "SmolVLMVideoProcessor",
}


def save_checkpoint(family: str, folder: Path, *, template: bool = True, old: bool = False) -> Path:
    """Write the tiny checkpoint of a family.

    template: with a chat template. old: in the files of transformers 4, as many are on the Hub.
    """
    name, pictures, sizes, own, _, _ = FAMILIES[family]
    with silent_bars():
        zoo.model(family).save_pretrained(folder)
    tokenizer(family).save_pretrained(folder)
    image = {**sizes, "image_processor_type": pictures}
    video = {"video_processor_type": VIDEO[family], **GRID} if family in VIDEO else {}
    if old:
        legacy = {**image, "processor_class": name}
        _write(folder / "preprocessor_config.json", legacy)
        _write(folder / "chat_template.json", {"chat_template": chat_template(family)})
        return folder
    saved = {"processor_class": name, "image_processor": image, **own}
    _write(
        folder / "processor_config.json", {**saved, "video_processor": video} if video else saved
    )
    if template:
        (folder / "chat_template.jinja").write_text(chat_template(family))
    return folder


def chat_template(family: str) -> str:
    """User turns as `user:` lines, pictures where they stand, `assistant:` as the prompt's end."""
    picture = FAMILIES[family][4][0]
    return (
        "{% for m in messages %}{{ m['role'] }}:\n"
        "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
        "{% for c in m['content'] %}{% if c['type'] == 'image' %}" + picture + "\n"
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:\n{% endif %}"
    )


def tokenizer(family: str) -> Any:
    """A tokenizer of characters with the family's special tokens at the ids of its tiny model."""
    picture, image, video = FAMILIES[family][4]
    ends = [t for t in FAMILIES[family][5]]
    specials = {"<pad>": 0, "<unk>": 1, "<s>": 2, image: zoo.IMAGE, video: zoo.VIDEO}
    free = [i for i in range(zoo.START, zoo.VOCABULARY)]
    specials |= dict(zip(ends, free, strict=False))
    vocabulary = {**specials, **{c: 3 + i for i, c in enumerate(CHARACTERS)}}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    plain.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=plain,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        extra_special_tokens=NAMED.get(family) or {},
    )


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values))
