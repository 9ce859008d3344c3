"""Which families can't host a method, and why: what `foveate methods` says and the tests prove.

A family of all modalities by its name, one modality of it as "name: modality".
"""

from __future__ import annotations

from collections.abc import Set

_SIZED = "the processor makes pictures of one size"
_UNSEEN = "the tower has no attention"
_POOLED = "a token is not one row of the tower"

_FIXED = frozenset(
    {
        *("gemma3", "idefics3", "internvl", "llava_next", "llava_next_video", "llava_onevision"),
        "smolvlm",
    }
)
_CONVOLVED = frozenset({"fast_vlm"})
_MERGED = frozenset(
    {
        *("fast_vlm", "gemma3", "glm4v", "idefics3", "internvl", "qwen2_5_vl", "qwen2_vl"),
        *("llava_next_video: video", "llava_onevision: video", "qwen3_vl", "smolvlm"),
        "video_llama_3",
    }
)

REFUSED: dict[str, tuple[str, Set[str]]] = {
    "downsample": (_SIZED, _FIXED),
    "dymu": (_POOLED, _MERGED),
    "fastervlm": (_UNSEEN, _CONVOLVED),
    "fopru": (_UNSEEN, _CONVOLVED),
    "globalcom2": (_UNSEEN, _CONVOLVED),
    "hired": (_UNSEEN, _CONVOLVED),
    "lvlm_csp": (_UNSEEN, _CONVOLVED),
    "tca": (_POOLED, _MERGED),
    "tome": (_POOLED, _MERGED),
    "visiondrop": (_UNSEEN, _CONVOLVED),
    "visionzip": (_UNSEEN, _CONVOLVED),
    "vispruner": (_UNSEEN, _CONVOLVED),
    "vtc_cls": (_UNSEEN, _CONVOLVED),
}
"""By slug the reason, and the families that refuse it; every other family hosts it."""


def hosts(slug: str, family: str, modality: str) -> bool:
    """Whether a family's items of a modality can be reduced by a method of this package."""
    _, families = REFUSED.get(slug, ("", frozenset()))
    return family not in families and f"{family}: {modality}" not in families


def told(slug: str) -> str:
    """The families that a method fits, in words."""
    if slug not in REFUSED:
        return "all"
    reason, families = REFUSED[slug]
    return f"all but {', '.join(sorted(families))} ({reason} there)"
