"""foveate: fewer visual tokens for any vision-language model.

Written by `make docs`; do not edit.
"""

from dataclasses import dataclass
from typing import Any, Literal

from foveate.budget import Keep
from foveate.catalogue import catalog as catalog
from foveate.classifier import zero_shot as zero_shot
from foveate.comparison import Comparison as Comparison
from foveate.comparison import compare as compare
from foveate.engine.attachment import Attachment as Attachment
from foveate.engine.attachment import attach as attach
from foveate.errors import BudgetError as BudgetError
from foveate.errors import FoveateError as FoveateError
from foveate.errors import MissingWeights as MissingWeights
from foveate.errors import UnsupportedCall as UnsupportedCall
from foveate.errors import UnsupportedModel as UnsupportedModel
from foveate.method import Method as Method
from foveate.method import create as create
from foveate.method import from_dict as from_dict
from foveate.method import register as register
from foveate.methods.layers.lvlm_csp import Segmenter
from foveate.methods.layers.videollm_mod import Placement
from foveate.processors import load_processor as load_processor
from foveate.report import Report as Report
from foveate.systems import MethodInfo as MethodInfo
from foveate.totals import Totals as Totals
from foveate.trained import TrainedMethod as TrainedMethod
from foveate.trained import from_pretrained as from_pretrained
from foveate.tuning import from_plan as from_plan
from foveate.tuning import tune as tune

__version__: str

class _Mini:
    world: Any
    def __call__(self, name: str = "image", dtype: Any = None) -> tuple[Any, Any]:
        """An embedded model in eval mode and its processor, without a download.

        Args:
            name: "nano", "image" (the default) or "clip".
            dtype: torch dtype of the weights, float32 by default.
        """
    def available(self) -> list[str]:
        """Names of the embedded models."""
    def model_card(self, name: str) -> dict[str, Any]:
        """The model card of an embedded model; empty for other names."""

mini: _Mini

@dataclass(frozen=True, kw_only=True, repr=False)
class AIM(Method):
    """Merge similar visual tokens before the LLM; prune the rest inside it by PageRank importance.

    Args:
        keep: mean over all LLM layers; an int is a count per image or video, a float in
            (0, 1] a retention ratio. The default merges to a quarter before the LLM.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        l1: first layer after which tokens are pruned, 0-based; None is half of the
            depth (13 for Vicuna in the paper).
        step: share of the tokens that each of these layers removes, above 0; None
            follows from `keep`.
        tau_imp: temperature of the importance ranking, above 0.
        iters: rounds of the importance ranking, 0 or more.
        d: damping of the importance ranking, in [0, 1].
        metric: what is compared for merging: "features", or "keys" of the last block of
            the vision encoder with merging before the projector, as for LLaVA-1.5.
    """

    keep: Keep
    positions: str
    l1: int | None
    step: float | None
    tau_imp: float
    iters: int
    d: float
    metric: Literal["features", "keys"]
    def __init__(
        self,
        *,
        keep: Keep = 0.16517857142857142,
        positions: str = "native",
        l1: int | None = None,
        step: float | None = None,
        tau_imp: float = 0.1,
        iters: int = 5,
        d: float = 0.0,
        metric: Literal["features", "keys"] = "features",
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class ATPLLaVA(TrainedMethod):
    """Prune visual tokens inside the LLM with learned thresholds that adapt to image and question.

    Args:
        keep: mean over all LLM layers, as a target; an int is a count per image or
            video, a float in (0, 1] a retention ratio. Single inputs keep more or fewer
            tokens.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        weights: Folder written by `save_pretrained`, or name of a shipped set such as
            "nano". None uses the shipped set that fits the model. "random" or
            "random:SEED" uses untrained modules.
        scores: parts of s_r: "both", "self" or "cross". None is what the weights were
            trained with ("cross" for the shipped ones), and "both" for untrained heads.
        layers_of: 0-based layers after which tokens are pruned, ascending; None is 4,
            14, 24 of 32, scaled to the depth.
        lambda_sample: lambda, the slope of the spatial score.
        rates: ascending ratios in (0, 1] of the rows and columns that the spatial score
            samples.
        temperature: temperature of the soft masks, above 0; in training only.
        min_keep: smallest number of visual tokens per sample, at least 1.
        hidden: width of the heads where they are untrained, at least 1.
    """

    keep: Keep
    positions: str
    weights: str | None
    scores: Literal["both", "self", "cross"] | None
    layers_of: tuple[int, ...] | None
    lambda_sample: float
    rates: tuple[float, ...]
    temperature: float
    min_keep: int
    hidden: int
    def __init__(
        self,
        *,
        keep: Keep = 0.25,
        positions: str = "original",
        weights: str | None = None,
        scores: Literal["both", "self", "cross"] | None = None,
        layers_of: tuple[int, ...] | None = None,
        lambda_sample: float = 3.0,
        rates: tuple[float, ...] = (0.125, 0.25, 0.5),
        temperature: float = 10.0,
        min_keep: int = 1,
        hidden: int = 64,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class CATP(Method):
    """Prune for in-context prompts: by coverage before the LLM, by relevance to the query inside
    it.

    Args:
        keep: mean over all LLM layers; an int is a count per image or video, a float in
            (0, 1] a retention ratio. The default is R = 0.778 at 32 layers.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        R: share of the tokens that is pruned, in [0, 1), half of it before the LLM,
            instead of `keep`.
        K: layer, counted from 1, after which demonstrations are pruned; None is 6 of
            32, scaled to the depth.
        lambda1: weight of the similarity to the text after the image.
        lambda2: weight of the similarity to the query.
    """

    keep: Keep
    positions: str
    R: float | None
    K: int | None
    lambda1: float
    lambda2: float
    def __init__(
        self,
        *,
        keep: Keep = 0.29736874999999996,
        positions: str = "native",
        R: float | None = None,
        K: int | None = None,
        lambda1: float = 0.7,
        lambda2: float = 0.6,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class CoViPAL(TrainedMethod):
    """Prune visual tokens inside the LLM with scores from a small learned module that reads text
    too.

    Args:
        keep: mean over all LLM layers; an int is a count per image or video, a float in
            (0, 1] a retention ratio. With boundary=(0,) it is the paper's r.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        weights: Folder written by `save_pretrained`, or name of a shipped set such as
            "nano". None uses the shipped set that fits the model. "random" or
            "random:SEED" uses untrained modules.
        boundary: ascending 0-based LLM layers before which tokens are pruned, one
            module each.
        ppm: architecture of the module: "cross" lets visual tokens attend to text,
            "mixer" to each other too, as in a later project that uses inner=512,
            blocks=4, heads=8.
        inner: width of the module where it is untrained, a multiple of `heads`.
        blocks: number of blocks of the module where it is untrained.
        heads: attention heads of the module where it is untrained, at least 1.
        temperature: T of the soft top-k; in training only.
        eps: added to m before the logarithm; in training only.
    """

    keep: Keep
    positions: str
    weights: str | None
    boundary: tuple[int, ...]
    ppm: Literal["cross", "mixer"]
    inner: int
    blocks: int
    heads: int
    temperature: float
    eps: float
    def __init__(
        self,
        *,
        keep: Keep = 0.25,
        positions: str = "original",
        weights: str | None = None,
        boundary: tuple[int, ...] = (0,),
        ppm: Literal["cross", "mixer"] = "cross",
        inner: int = 256,
        blocks: int = 2,
        heads: int = 4,
        temperature: float = 0.1,
        eps: float = 1e-06,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class DART(Method):
    """Prune visual tokens inside the LLM: keep those least similar to a few pivot tokens.

    Args:
        keep: tokens from LLM layer k on; k is `pruning_loc`; an int is a count per
            image or video, a float in (0, 1] a retention ratio, 1 - R of the paper.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        pruning_loc: k, the first LLM layer with fewer tokens, 0-based, at least 1.
        pivot_image_token: number of visual pivots, at least 1.
        pivot_text_token: number of text pivots, 0 or more.
    """

    keep: Keep
    positions: str
    pruning_loc: int
    pivot_image_token: int
    pivot_text_token: int
    def __init__(
        self,
        *,
        keep: Keep = 0.2222,
        positions: str = "original",
        pruning_loc: int = 2,
        pivot_image_token: int = 4,
        pivot_text_token: int = 4,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class DivPrune(Method):
    """Prune visual tokens before the LLM: keep the most diverse set (greedy max-min distance).

    Args:
        keep: tokens that enter the LLM; an int is a count per image or video, a float
            in (0, 1] a retention ratio. The default is the paper's.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        per_crop: select within each crop or frame, each with an even share of the
            budget; newline tokens are dropped.
        protect: always keep the newline tokens; they count towards the budget.
    """

    keep: Keep
    positions: str
    per_crop: bool
    protect: bool
    def __init__(
        self,
        *,
        keep: Keep = 0.098,
        positions: str = "native",
        per_crop: bool = False,
        protect: bool = False,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class Downsample(Method):
    """Resize the image before the vision encoder so that it gives fewer visual tokens (baseline).

    Args:
        keep: tokens that enter the LLM, at most; an int is a count per image or video,
            a float in (0, 1] a retention ratio.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        stretch: largest factor by which the aspect ratio may change to get closer to
            the budget, at least 1.0; 1.0 keeps the aspect ratio of the image.
    """

    keep: Keep
    positions: str
    stretch: float
    def __init__(
        self, *, keep: Keep = 0.25, positions: str = "native", stretch: float = 1.25
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class DyMU(Method):
    """Merge similar tokens in the vision encoder by threshold; unmerge them virtually in the LLM.

    Args:
        keep: tokens that enter the LLM, on average over images where thresholds are
            given; an int is a count per crop or frame, a float in (0, 1] a retention
            ratio.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        thresholds: one cosine per block that merges, from `calibrate`, or the path of a
            JSON file with the `to_dict` of a calibrated method; 1.0 merges nothing.
            None merges every image to exactly `keep`.
        merge_mode: "batch_level" uses the thresholds, "instance_level" ignores them, so
            that the number of tokens is known in advance.
        r_total: number of patches to merge per crop or frame, instead of `keep`.
        r_schedule: merges over the blocks: "constant", "linear" (falling) or
            "reverse_linear".
        max_r_per_instance_ratio: most merges of one image in one block, as a multiple
            of the mean, above 0; only with thresholds. None for no limit.
        repeat_merged_tokens: virtual unmerging in the LLM; False lets the LLM attend to
            merged tokens once.
    """

    keep: Keep
    positions: str
    thresholds: tuple[float, ...] | str | None
    merge_mode: Literal["batch_level", "instance_level"]
    r_total: int | None
    r_schedule: Literal["constant", "linear", "reverse_linear"]
    max_r_per_instance_ratio: float | None
    repeat_merged_tokens: bool
    def __init__(
        self,
        *,
        keep: Keep = 0.5,
        positions: str = "original",
        thresholds: tuple[float, ...] | str | None = None,
        merge_mode: Literal["batch_level", "instance_level"] = "batch_level",
        r_total: int | None = None,
        r_schedule: Literal["constant", "linear", "reverse_linear"] = "constant",
        max_r_per_instance_ratio: float | None = None,
        repeat_merged_tokens: bool = True,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class DyVTE(TrainedMethod):
    """Drop all visual tokens at an LLM layer that a learned gate chooses per sample.

    Args:
        keep: mean over all LLM layers, at most, for each sample; an int is a count per
            image or video, a float in (0, 1] a retention ratio. The default leaves the
            decision to the gates.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        weights: Folder written by `save_pretrained`, or name of a shipped set such as
            "nano". None uses the shipped set that fits the model. "random" or
            "random:SEED" uses untrained modules.
        exit_bias: added to exit - stay; above 0 visual tokens are dropped earlier.
        hidden: width of the gates where they are untrained, at least 1; loaded weights
            bring their own.
    """

    keep: Keep
    positions: str
    weights: str | None
    exit_bias: float
    hidden: int
    def __init__(
        self,
        *,
        keep: Keep = 0.999,
        positions: str = "original",
        weights: str | None = None,
        exit_bias: float = 0.0,
        hidden: int = 2048,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class ExplainCompress(TrainedMethod):
    """Prune visual tokens before the first LLM layer with relevance scores from a small learned
    CNN.

    Args:
        keep: tokens from LLM layer k on; k is 0, so that every layer runs on them; an
            int is a count per image or video, a float in (0, 1] a retention ratio, rho
            of the paper.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        weights: Folder written by `save_pretrained`, or name of a shipped set such as
            "nano". None uses the shipped set that fits the model. "random" or
            "random:SEED" uses untrained modules.
        channels: widths of the convolutions where the network is untrained, each at
            least 1.
        heads: number of attention heads of the LLM, where every head is an input
            channel; None takes their mean, as the paper does. Loaded weights bring
            their own.
    """

    keep: Keep
    positions: str
    weights: str | None
    channels: tuple[int, ...]
    heads: int | None
    def __init__(
        self,
        *,
        keep: Keep = 0.5,
        positions: str = "native",
        weights: str | None = None,
        channels: tuple[int, ...] = (32, 64, 128, 256, 512),
        heads: int | None = None,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class FastV(Method):
    """Prune visual tokens once inside the LLM: keep those with the highest last-token attention.

    Args:
        keep: tokens from LLM layer k on; an int is a count per image or video, a float
            in (0, 1] a retention ratio, 1 - R of the paper.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        k: the first LLM layer with fewer tokens, 0-based; 0 keeps a random subset.
        seed: seed of the random subset at k = 0.
    """

    keep: Keep
    positions: str
    k: int
    seed: int
    def __init__(
        self, *, keep: Keep = 0.5, positions: str = "original", k: int = 2, seed: int = 0
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class FasterVLM(Method):
    """Prune visual tokens before the LLM: keep those with the highest [CLS] attention.

    Args:
        keep: tokens that enter the LLM; an int is a count per image or video, a float
            in (0, 1] a retention ratio.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        score: "cls" for [CLS] attention, "received" for the attention that a patch
            receives, "auto" for "cls" where the vision encoder has a [CLS] token and
            "received" elsewhere.
    """

    keep: Keep
    positions: str
    score: Literal["cls", "received", "auto"]
    def __init__(
        self,
        *,
        keep: Keep = 0.25,
        positions: str = "native",
        score: Literal["cls", "received", "auto"] = "auto",
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class FoPru(Method):
    """Prune visual tokens before the LLM by attention among patches: keep the best patches or rows.

    Args:
        keep: tokens that enter the LLM; an int is a count per image or video, a float
            in (0, 1] a retention ratio.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        strategy: "rank" keeps the best patches, "row" the best rows of patches.
        score: "variance" for whichever of the two varies more, "received", "given", or
            "cls" for [CLS] attention.
        layer: layer of the vision encoder, 0-based, negative from the end.
    """

    keep: Keep
    positions: str
    strategy: Literal["rank", "row"]
    score: Literal["variance", "received", "given", "cls"]
    layer: int
    def __init__(
        self,
        *,
        keep: Keep = 0.25,
        positions: str = "native",
        strategy: Literal["rank", "row"] = "rank",
        score: Literal["variance", "received", "given", "cls"] = "variance",
        layer: int = -2,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class FourierVLM(Method):
    """Compress visual tokens before the LLM: keep their low spatial frequencies (2-D DCT).

    Args:
        keep: tokens that enter the LLM; an int is a count per image or video, a float
            in (0, 1] a retention ratio.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        reserve: rows and columns that every crop or frame keeps, instead of `keep`; one
            number for both, or a pair (rows, columns), from 1 on.
        ratio: share of its rows and of its columns that every frame keeps, instead of
            `keep`, in (0, 1].
        norm: "ortho" for the orthogonal DCT, None for the plain one.
        preserve_mean: leave constant images as they are; use False with models that
            were tuned with the official code.
    """

    keep: Keep
    positions: str
    reserve: int | tuple[int, int] | None
    ratio: float | None
    norm: Literal["ortho"] | None
    preserve_mean: bool
    def __init__(
        self,
        *,
        keep: Keep = 0.25,
        positions: str = "native",
        reserve: int | tuple[int, int] | None = None,
        ratio: float | None = None,
        norm: Literal["ortho"] | None = "ortho",
        preserve_mean: bool = True,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class GSearch(Method):
    """Prune visual tokens layer by layer inside the LLM, with a searched or a sigmoid schedule.

    Args:
        keep: mean over all LLM layers, from which alpha follows; an int is a count per
            image or video, a float in (0, 1] a retention ratio.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        schedule: retention ratio of every layer, instead of `keep`; one per layer,
            starting with 1.0, never rising.
        kappa: slope of the sigmoid per layer, below 0; near 0 it is flat, far below 0
            it is a step.
        floor: smallest retention ratio of the sigmoid, in [0, 1).
        rows: query tokens of the attention: "text" after the image, or the "last"
            prompt token.
    """

    keep: Keep
    positions: str
    schedule: tuple[float, ...] | None
    kappa: float
    floor: float
    rows: Literal["text", "last"]
    def __init__(
        self,
        *,
        keep: Keep = 0.5,
        positions: str = "original",
        schedule: tuple[float, ...] | None = None,
        kappa: float = -1.0,
        floor: float = 0.0,
        rows: Literal["text", "last"] = "text",
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class GlobalCom2(Method):
    """Prune tiled images before the LLM: the overview sets each crop's budget and guides selection.

    Args:
        keep: tokens that enter the LLM; an int is a count per image or video, newline
            tokens included; a float in (0, 1] is r, the retention ratio of patches, and
            newline tokens are kept in addition.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        temperature: tau of the budgets of crops, above 0; higher values make them more
            even.
        thumbnail_order: order of the overview's tokens: "score" is best first, "raster"
            reading order.
        placement: "true" keeps tokens at their places in padded images, "official" puts
            them into the first cells of each crop.
    """

    keep: Keep
    positions: str
    temperature: float
    thumbnail_order: Literal["score", "raster"]
    placement: Literal["true", "official"]
    def __init__(
        self,
        *,
        keep: Keep = 0.25,
        positions: str = "native",
        temperature: float = 10.0,
        thumbnail_order: Literal["score", "raster"] = "score",
        placement: Literal["true", "official"] = "true",
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class GridPool(Method):
    """Pool visual tokens before the LLM: average neighbouring patches on a regular grid (baseline).

    Args:
        keep: tokens that enter the LLM; an int is a count per image or video, a float
            in (0, 1] a retention ratio.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
    """

    keep: Keep
    positions: str
    def __init__(self, *, keep: Keep = 0.25, positions: str = "native") -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class HiRED(Method):
    """Prune tiled images before the LLM: a budget per crop by content, selection by [CLS]
    attention.

    Args:
        keep: tokens that enter the LLM; an int is a count per image or video, a float
            in (0, 1] a retention ratio.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        alpha: a, the overview's share of the budget, in [0, 1].
        mark_ratio: share of the overview's patches to mark, in [0, 1]; None is 1 -
            alpha.
        regions: region of a crop in the overview: "flat" is an equal run of patches in
            reading order, as in the official code; "grid" is the part of the image that
            the crop shows.
        content: content of a region: "count" counts marks, "mass" sums the attention of
            all its patches.
    """

    keep: Keep
    positions: str
    alpha: float
    mark_ratio: float | None
    regions: Literal["flat", "grid"]
    content: Literal["count", "mass"]
    def __init__(
        self,
        *,
        keep: Keep = 0.2,
        positions: str = "native",
        alpha: float = 0.5,
        mark_ratio: float | None = None,
        regions: Literal["flat", "grid"] = "flat",
        content: Literal["count", "mass"] = "count",
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class LLaVolta(Method):
    """Average-pool runs of visual tokens before one LLM layer (1-D pooling).

    Args:
        keep: tokens from LLM layer k on; k is `layer`; an int is a count per image or
            video, a float in (0, 1] a retention ratio, 1 / S of the paper.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        layer: k, the first LLM layer with pooled tokens, 0-based; 16 is the paper's
            light preset. 0 with `positions="packed"` pools the output of the projector.
        stride: S, the window in tokens, from 1 on, instead of `keep`.
    """

    keep: Keep
    positions: str
    layer: int
    stride: int | None
    def __init__(
        self,
        *,
        keep: Keep = 0.125,
        positions: str = "original",
        layer: int = 2,
        stride: int | None = None,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class LVLMCSP(Method):
    """Run few visual tokens in early LLM layers, all in the middle layers, and a pruned set at the
    end.

    Args:
        keep: mean over all LLM layers, from which N_c = 2 N_p follow; an int is a count
            per image or video, a float in (0, 1] a retention ratio.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        selector: how representatives are selected: "cls", "uniform", "random" or
            "seg_first", which needs a `segmenter`.
        N_c: representatives per image or video, a count or a retention ratio, instead
            of `keep`.
        N_p: tokens per image or video in the last layers, a count or a retention ratio,
            instead of `keep`.
        b1: first LLM layer with all tokens, 0-based; None is a quarter of the depth.
        b2: first LLM layer of the pruning phase, above b1; None is half of the depth.
        init: state with which tokens come back at b1: "embed" as they entered the LLM,
            "residual" with the updates of the nearest representative added.
        full_last_layers: skip the pruning phase.
        seed: seed of the random subset.
        segmenter: function (row, item, h, w) -> masks (O, h, w) of the instances of
            that image; for "seg_first" only.
    """

    keep: Keep
    positions: str
    selector: Literal["cls", "uniform", "random", "seg_first"]
    N_c: Keep | None
    N_p: Keep | None
    b1: int | None
    b2: int | None
    init: Literal["embed", "residual"]
    full_last_layers: bool
    seed: int
    segmenter: Segmenter | None
    def __init__(
        self,
        *,
        keep: Keep = 0.3125,
        positions: str = "original",
        selector: Literal["cls", "uniform", "random", "seg_first"] = "cls",
        N_c: Keep | None = None,
        N_p: Keep | None = None,
        b1: int | None = None,
        b2: int | None = None,
        init: Literal["embed", "residual"] = "embed",
        full_last_layers: bool = False,
        seed: int = 0,
        segmenter: Segmenter | None = None,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class PyramidDrop(Method):
    """Prune visual tokens inside the LLM in stages, by attention from the last prompt token.

    Args:
        keep: mean over all LLM layers, from which lambda follows; an int is a count per
            image or video, a float in (0, 1] a retention ratio. The default gives
            lambda = 0.5.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        layer_list: ascending 0-based layers before which tokens are pruned, from 1 on;
            None is a quarter, a half and three quarters of the depth.
        image_token_ratio_list: retention ratio from each of these layers on, falling,
            instead of `keep`.
        min_tokens: smallest number of visual tokens per sample, 0 or more.
    """

    keep: Keep
    positions: str
    layer_list: tuple[int, ...] | None
    image_token_ratio_list: tuple[float, ...] | None
    min_tokens: int
    def __init__(
        self,
        *,
        keep: Keep = 0.46875,
        positions: str = "native",
        layer_list: tuple[int, ...] | None = None,
        image_token_ratio_list: tuple[float, ...] | None = None,
        min_tokens: int = 0,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class Random(Method):
    """Prune visual tokens before the LLM: keep a random subset (baseline).

    Args:
        keep: tokens that enter the LLM; an int is a count per image or video, a float
            in (0, 1] a retention ratio.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        seed: seed of the draw, any int; another seed keeps another subset.
    """

    keep: Keep
    positions: str
    seed: int
    def __init__(self, *, keep: Keep = 0.25, positions: str = "native", seed: int = 0) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class SparseVLM(Method):
    """Prune inside the LLM by attention from relevant text tokens; merge part of the pruned tokens.

    Args:
        keep: mean over all LLM layers, merged tokens included; an int is a count per
            image or video, a float in (0, 1] a retention ratio. The default is 192 of
            576.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        pruning_layers: ascending 0-based layers after which tokens are pruned; None is
            2, 6, 15 of 32, scaled to the depth.
        retained: tokens per image that are kept after each of these layers, without the
            merged ones, instead of `keep`; (300, 200, 110), (303, 110, 36) or (66, 30,
            17) in the paper.
        recycle: merge part of the pruned tokens; False drops all of them.
    """

    keep: Keep
    positions: str
    pruning_layers: tuple[int, ...] | None
    retained: tuple[int, ...] | None
    recycle: bool
    def __init__(
        self,
        *,
        keep: Keep = 0.3333333333333333,
        positions: str = "native",
        pruning_layers: tuple[int, ...] | None = None,
        retained: tuple[int, ...] | None = None,
        recycle: bool = True,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class TCA(Method):
    """Prune and merge tokens in the vision encoder by [CLS] attention, with test-time adaptation.

    Args:
        keep: tokens that enter the LLM; an int is a count per crop or frame, a float in
            (0, 1] a retention ratio.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        delta: share of the tokens that each condensing layer removes, instead of
            `keep`, in [0, 1); 0.1 and 0.035 in the paper, 0 removes nothing.
        drop_loc: condensing layers of an encoder of 12 layers, 0-based; other depths
            are scaled.
        centers: averages made of the tokens in the middle of the ranking; 0 is EViT.
        rank: "mean_attn" ranks by mean attention over heads, "head_rank" by the mean
            over heads of ranks.
        reservoir_size: samples cached per class of a stream; 0 for no adaptation.
        scale: spread of the weights over layers in the correction of logits, above 0.
        lam: weight of the correction of logits.
        beta: sharpness of the correction of logits.
        gate: "all" refreshes the anchors once all classes seen so far have two samples,
            "class" refreshes those of each class that has two.
    """

    keep: Keep
    positions: str
    delta: float | None
    drop_loc: tuple[int, ...]
    centers: int
    rank: Literal["mean_attn", "head_rank"]
    reservoir_size: int
    scale: float
    lam: float
    beta: float
    gate: Literal["all", "class"]
    def __init__(
        self,
        *,
        keep: Keep = 0.3877551020408163,
        positions: str = "native",
        delta: float | None = None,
        drop_loc: tuple[int, ...] = (3, 6, 9),
        centers: int = 4,
        rank: Literal["mean_attn", "head_rank"] = "mean_attn",
        reservoir_size: int = 3,
        scale: float = 0.1,
        lam: float = 3.0,
        beta: float = 5.0,
        gate: Literal["all", "class"] = "all",
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class TCLLaVA(Method):
    """Change attention in the LLM: temporal position ids, and full attention within each frame.

    Args:
        keep: always 1.0, because the method drops no tokens.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        gamma: weight of the temporal id in the position; 0.0 leaves positions as they
            are.
        block_mask: tokens of one frame attend to each other in both directions.
        text_temporal: "advance" increases the temporal id with each text token too,
            "zero_delta" with frames only.
    """

    keep: Keep
    positions: str
    gamma: float
    block_mask: bool
    text_temporal: Literal["advance", "zero_delta"]
    def __init__(
        self,
        *,
        keep: Keep = 1.0,
        positions: str = "original",
        gamma: float = 1.0,
        block_mask: bool = True,
        text_temporal: Literal["advance", "zero_delta"] = "advance",
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class ToMe(Method):
    """Merge similar tokens in every block of the vision encoder (bipartite matching).

    Args:
        keep: tokens that enter the LLM; an int is a count per crop or frame, a float in
            (0, 1] a retention ratio.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        r: merges per block, instead of `keep`: an int for every block, a pair (r,
            inflection) with a float inflection from -1.0 (falling over depth) to 1.0
            (rising), or a tuple with one count per block.
        kth: instead of `keep`, merge once, in the first block: every patch joins the
            most similar of each kth patch, so that n patches become n // kth. At least
            1.
        prop_attn: add log(size) to the attention logits of merged tokens; use False for
            vision encoders that were trained with merging.
    """

    keep: Keep
    positions: str
    r: int | tuple[int, ...] | tuple[int, float] | None
    kth: int | None
    prop_attn: bool
    def __init__(
        self,
        *,
        keep: Keep = 0.5,
        positions: str = "native",
        r: int | tuple[int, ...] | tuple[int, float] | None = None,
        kth: int | None = None,
        prop_attn: bool = True,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class TransPrune(Method):
    """Prune inside the LLM in stages, by how layers change each token and by attention from the
    text.

    Args:
        keep: mean over all LLM layers, from which the ratios follow; an int is a count
            per image or video, a float in (0, 1] a retention ratio. The default gives
            the paper's ratios at 32 layers.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        pruning_layer_list: ascending 0-based layers before which tokens are pruned,
            from 1 on; None scales the paper's 7, 9, 12 of 32 with the depth.
        accumulating_layer_list: layers, counted from 1, whose transitions are summed;
            None is from the first pruning layer to the last.
        image_token_ratio_list: retention ratio from each pruning layer on, falling,
            instead of `keep`.
        alpha: weight of the transitions, in [0, 1]; 1 - alpha is the weight of the
            attention.
        use_iga: False leaves the attention from text out.
        direction: "signed" uses 1 - cos, "abs" uses 1 - |cos|.
        softmax_over: tokens of the softmax: "all" or "visual".
        eps: added to sums before a division, above 0.
    """

    keep: Keep
    positions: str
    pruning_layer_list: tuple[int, ...] | None
    accumulating_layer_list: tuple[int, ...] | None
    image_token_ratio_list: tuple[float, ...] | None
    alpha: float
    use_iga: bool
    direction: Literal["signed", "abs"]
    softmax_over: Literal["all", "visual"]
    eps: float
    def __init__(
        self,
        *,
        keep: Keep = 0.41015625,
        positions: str = "native",
        pruning_layer_list: tuple[int, ...] | None = None,
        accumulating_layer_list: tuple[int, ...] | None = None,
        image_token_ratio_list: tuple[float, ...] | None = None,
        alpha: float = 0.5,
        use_iga: bool = True,
        direction: Literal["signed", "abs"] = "signed",
        softmax_over: Literal["all", "visual"] = "all",
        eps: float = 1e-08,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class Uniform(Method):
    """Prune visual tokens before the LLM: keep every n-th patch in reading order (baseline).

    Args:
        keep: tokens that enter the LLM; an int is a count per image or video, a float
            in (0, 1] a retention ratio.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
    """

    keep: Keep
    positions: str
    def __init__(self, *, keep: Keep = 0.25, positions: str = "native") -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class VTCCLS(Method):
    """Prune visual tokens before the LLM by [CLS] attention, summed over late layers of the
    encoder.

    Args:
        keep: tokens that enter the LLM; an int is a count per image or video, a float
            in (0, 1] a retention ratio.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        layer: s, the first layer of the slice [s : -1] of the vision encoder; -8 is
            layer 16 of 24.
        reduce_layers: how scores of layers are combined: "sum", "mean", "max" or "min".
    """

    keep: Keep
    positions: str
    layer: int
    reduce_layers: Literal["sum", "mean", "max", "min"]
    def __init__(
        self,
        *,
        keep: Keep = 0.25,
        positions: str = "native",
        layer: int = -8,
        reduce_layers: Literal["sum", "mean", "max", "min"] = "sum",
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class VideoLLMMoD(TrainedMethod):
    """Mixture of depths: every second LLM layer processes only the top-scored visual tokens per
    frame.

    Args:
        keep: mean over all LLM layers, of the tokens that a layer processes; an int is
            a count per image or video, a float in (0, 1] a retention ratio. 0.6 is the
            paper's keep_ratio of 0.2.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        weights: Folder written by `save_pretrained`, or name of a shipped set such as
            "nano". None uses the shipped set that fits the model. "random" or
            "random:SEED" uses untrained modules.
        keep_ratio: share of the tokens of a frame that an MoD layer processes, instead
            of `keep`, in (0, 1].
        placement: which layers are MoD layers: "interleaved" (every second one), "all",
            "deep" (the second half) or "interleaved-deep" (every second one of the
            second half).
        selector: "learned" uses the routers. "random", "uniform" and "skip" need no
            weights; with "skip" MoD layers process no visual token, which is layer
            skipping, and with placement="deep" early exit.
        gate: weight of the layer's output: r as it is ("raw"), or sigmoid(r)
            ("sigmoid").
        seed: seed of the "random" selector.
    """

    keep: Keep
    positions: str
    weights: str | None
    keep_ratio: float | None
    placement: Placement
    selector: Literal["learned", "random", "uniform", "skip"]
    gate: Literal["raw", "sigmoid"]
    seed: int
    def __init__(
        self,
        *,
        keep: Keep = 0.6,
        positions: str = "original",
        weights: str | None = None,
        keep_ratio: float | None = None,
        placement: Placement = "interleaved",
        selector: Literal["learned", "random", "uniform", "skip"] = "learned",
        gate: Literal["raw", "sigmoid"] = "raw",
        seed: int = 0,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class VisPruner(Method):
    """Prune visual tokens before the LLM: half by highest [CLS] attention, half by lowest
    similarity.

    Args:
        keep: tokens that enter the LLM; an int is a count per image or video, a float
            in (0, 1] a retention ratio. The default is 128 of 576.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        important_ratio: r, the share of the budget that is selected by attention, in
            [0, 1].
        round_size: tokens that one round removes, at least 1.
    """

    keep: Keep
    positions: str
    important_ratio: float
    round_size: int
    def __init__(
        self,
        *,
        keep: Keep = 0.2222,
        positions: str = "native",
        important_ratio: float = 0.5,
        round_size: int = 8,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class VisionDrop(Method):
    """Prune and merge before and inside the LLM by the attention that visual tokens pay each other.

    Args:
        keep: mean over all LLM layers, merged tokens included; an int is a count per
            image or video, a float in (0, 1] a retention ratio. With the default, 48 of
            576 tokens enter the LLM, and the mean is 32.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        contextual: merged tokens of each crop or frame that enter the LLM; None is an
            eighth.
        mean_preserving: True makes a contextual token the mean of all its members;
            False is the official sum of target and mean, which about doubles its norm.
        dominant: dominant tokens of each crop or frame that enter the LLM, the [CLS]
            token included, instead of `keep`; at least 1.
        layer_list: ascending 0-based LLM layers before which tokens are pruned, from 1
            on; None is a quarter, a half and three quarters of the depth.
        image_token_list: pairs (dominant, contextual) of tokens per image from each of
            these layers on, at least (1, 0).
    """

    keep: Keep
    positions: str
    contextual: int | None
    mean_preserving: bool
    dominant: int | None
    layer_list: tuple[int, ...] | None
    image_token_list: tuple[tuple[int, int], ...] | None
    def __init__(
        self,
        *,
        keep: Keep = 0.05555555555555555,
        positions: str = "native",
        contextual: int | None = None,
        mean_preserving: bool = False,
        dominant: int | None = None,
        layer_list: tuple[int, ...] | None = None,
        image_token_list: tuple[tuple[int, int], ...] | None = None,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class VisionZip(Method):
    """Keep the patches with the highest [CLS] attention before the LLM; merge all others into a
    few.

    Args:
        keep: tokens that enter the LLM, the [CLS] token and contextual tokens included;
            an int is a count per image or video, a float in (0, 1] a retention ratio.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        contextual: merged tokens of each crop or frame, 0 or more; None is 10 of every
            64 tokens of its budget.
        mean_preserving: True makes a contextual token the mean of all its members;
            False is the official sum of target and mean, which about doubles its norm.
    """

    keep: Keep
    positions: str
    contextual: int | None
    mean_preserving: bool
    def __init__(
        self,
        *,
        keep: Keep = 64,
        positions: str = "native",
        contextual: int | None = None,
        mean_preserving: bool = False,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class VistaLLaMA(Method):
    """Change attention in the LLM: no rotary position between queries and visual keys.

    Args:
        keep: always 1.0, because the method drops no tokens.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        layer_list: 0-based LLM layers that use the rule; None for all.
        visual_query: queries that read visual keys without rotation: "raw" for all
            queries, "rope" for text queries only.
    """

    keep: Keep
    positions: str
    layer_list: tuple[int, ...] | None
    visual_query: Literal["raw", "rope"]
    def __init__(
        self,
        *,
        keep: Keep = 1.0,
        positions: str = "original",
        layer_list: tuple[int, ...] | None = None,
        visual_query: Literal["raw", "rope"] = "raw",
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class YOPO(Method):
    """Cut the computation of visual tokens in the LLM: local attention, heads, neurons, late
    layers.

    Args:
        keep: mean over all LLM layers, the share of the layers that compute visual
            tokens; a float in (0, 1]. 1.0 cuts nothing, neither heads nor neurons.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        attncut_w: side of the attention window in patches, an odd number; None for no
            window.
        layercut_num: first layer that computes no visual tokens, instead of `keep`,
            from 1 on; the number of layers cuts none.
        headmask: one tuple per layer with 1 or True for each head that is kept; None
            keeps all heads.
        mlpcut_ratio: all neurons divided by those that visual tokens use, at least 1.0;
            use 1.0 with models that were not tuned with the cut.
        renormalize: from layer `layercut_num` on, drop visual tokens (True) or zero
            their values (False).
        causal_neighbors: no patch attends to a later one.
    """

    keep: Keep
    positions: str
    attncut_w: int | None
    layercut_num: int | None
    headmask: tuple[tuple[bool | int, ...], ...] | None
    mlpcut_ratio: float
    renormalize: bool
    causal_neighbors: bool
    def __init__(
        self,
        *,
        keep: Keep = 0.625,
        positions: str = "original",
        attncut_w: int | None = 5,
        layercut_num: int | None = None,
        headmask: tuple[tuple[bool | int, ...], ...] | None = None,
        mlpcut_ratio: float = 2.0,
        renormalize: bool = True,
        causal_neighbors: bool = False,
    ) -> None: ...

@dataclass(frozen=True, kw_only=True, repr=False)
class ZipVL(Method):
    """Sparse attention in prefill and a mixed-precision KV cache, by importance of tokens per
    layer.

    Args:
        keep: important tokens in each LLM layer; a float in (0, 1] is a share of all
            tokens, text included, an int a count per image or video in addition to the
            number of text tokens; "adaptive" derives the number from `tau`, per layer
            and input. 1.0 is the full model.
        positions: position ids after tokens are dropped. "original" leaves gaps,
            "packed" renumbers the tokens that remain, "native" is "original" in models
            with M-RoPE and "packed" in all others.
        tau: share of the attention that important tokens must hold, in (0, 1]; used
            where `keep` is "adaptive".
        probes: numbers of last and of random query tokens that score, at least (1, 0).
        bits: bits of important and of other tokens in the cache, each 2, 4, 8 or 16
            (16: unchanged); None is (4, 2), and 16 with `evict`.
        streaming_gap: new tokens that are cached unchanged before they are quantised
            together, at least 1.
        evict: drop unimportant tokens from the cache.
        denominators: divide attention by the number of query tokens that attend to a
            token ("exact"), or by the number of all later tokens ("zipcache").
        seed: seed of the random query tokens.
    """

    keep: Keep | Literal["adaptive"]
    positions: str
    tau: float
    probes: tuple[int, int]
    bits: tuple[int, int] | None
    streaming_gap: int
    evict: bool
    denominators: Literal["exact", "zipcache"]
    seed: int
    def __init__(
        self,
        *,
        keep: Keep | Literal["adaptive"] = "adaptive",
        positions: str = "original",
        tau: float = 0.975,
        probes: tuple[int, int] = (64, 64),
        bits: tuple[int, int] | None = None,
        streaming_gap: int = 100,
        evict: bool = False,
        denominators: Literal["exact", "zipcache"] = "exact",
        seed: int = 0,
    ) -> None: ...
