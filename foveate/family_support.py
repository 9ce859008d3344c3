"""Which model families a method does not support, and why.

`foveate methods SLUG` and the method pages show this table, and the tests check it. An entry is the
name of a family, or "name: modality" for images or videos only.
"""

from __future__ import annotations

from collections.abc import Set

NAMES = {
    "fast_vlm": "FastVLM",
    "gemma3": "Gemma 3",
    "glm4v": "GLM-4V",
    "idefics3": "Idefics3",
    "internvl": "InternVL",
    "llava": "LLaVA",
    "llava_next": "LLaVA-NeXT",
    "llava_next_video": "LLaVA-NeXT-Video",
    "llava_onevision": "LLaVA-OneVision",
    "paligemma": "PaliGemma",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen2_vl": "Qwen2-VL",
    "qwen3_vl": "Qwen3-VL",
    "smolvlm": "SmolVLM",
    "video_llama_3": "VideoLLaMA 3",
    "video_llava": "Video-LLaVA",
}
"""The model families by the name of their module, as pages call them."""

_FIXED_SIZE = "the processor resizes every image to one size"
_NO_ATTENTION = "the vision encoder has no attention"
_POOLS_PATCHES = "one visual token pools several patches"

_FIXED_SIZE_FAMILIES = frozenset(
    {
        *("gemma3", "idefics3", "internvl", "llava_next", "llava_next_video", "llava_onevision"),
        "smolvlm",
    }
)
_CONVOLUTIONAL = frozenset({"fast_vlm"})
_POOLING = frozenset(
    {
        *("fast_vlm", "gemma3", "glm4v", "idefics3", "internvl", "qwen2_5_vl", "qwen2_vl"),
        *("llava_next_video: video", "llava_onevision: video", "qwen3_vl", "smolvlm"),
        "video_llama_3",
    }
)

UNSUPPORTED: dict[str, tuple[str, Set[str]]] = {
    "downsample": (_FIXED_SIZE, _FIXED_SIZE_FAMILIES),
    "dymu": (_POOLS_PATCHES, _POOLING),
    "fastervlm": (_NO_ATTENTION, _CONVOLUTIONAL),
    "fopru": (_NO_ATTENTION, _CONVOLUTIONAL),
    "globalcom2": (_NO_ATTENTION, _CONVOLUTIONAL),
    "hired": (_NO_ATTENTION, _CONVOLUTIONAL),
    "lvlm_csp": (_NO_ATTENTION, _CONVOLUTIONAL),
    "tca": (_POOLS_PATCHES, _POOLING),
    "tome": (_POOLS_PATCHES, _POOLING),
    "visiondrop": (_NO_ATTENTION, _CONVOLUTIONAL),
    "visionzip": (_NO_ATTENTION, _CONVOLUTIONAL),
    "vispruner": (_NO_ATTENTION, _CONVOLUTIONAL),
    "vtc_cls": (_NO_ATTENTION, _CONVOLUTIONAL),
}
"""By slug: the reason, and the families that the method does not support."""


def supports(slug: str, family: str, modality: str) -> bool:
    """Whether a method of this package supports the images or videos of a model family."""
    _, families = UNSUPPORTED.get(slug, ("", frozenset()))
    return family not in families and f"{family}: {modality}" not in families


def supported_families(slug: str) -> str:
    """The model families that a method supports, as text."""
    if slug not in UNSUPPORTED:
        return "all"
    reason, families = UNSUPPORTED[slug]
    return f"all except {', '.join(map(_named, sorted(families)))} ({reason})"


def family_count(slug: str) -> str:
    """The same in few words: "all", "all but FastVLM" or "9 of 16".

    A family that is supported for images only counts as supported.
    """
    _, families = UNSUPPORTED.get(slug, ("", frozenset()))
    if len(families) <= 1:
        return " but ".join(["all", *map(_named, families)])
    return f"{len(NAMES.keys() - families)} of {len(NAMES)}"


def _named(entry: str) -> str:
    family, _, modality = entry.partition(": ")
    return f"{NAMES[family]} with {modality}s" if modality else NAMES[family]
