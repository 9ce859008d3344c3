"""Which model families a method does not support, and why.

`foveate methods SLUG` and the method pages show this table, and the tests check it. An entry is the
name of a family, or "name: modality" for images or videos only.
"""

from __future__ import annotations

from collections.abc import Set

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
    return f"all except {', '.join(sorted(families))} ({reason})"
