"""foveate: fewer visual tokens for any vision-language model.

Written by `make docs`; do not edit.
"""

from typing import Literal

from foveate import mini as mini
from foveate.budget import Keep
from foveate.catalogue import catalog as catalog
from foveate.classifier import zero_shot as zero_shot
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
from foveate.trained import TrainedMethod as TrainedMethod
from foveate.trained import from_pretrained as from_pretrained
from foveate.tuning import from_plan as from_plan
from foveate.tuning import tune as tune

__version__: str

class AIM(Method):
    """AIM: merge what looks alike in front of the language model, prune what matters little inside
    it.

    Args:
        keep: mean over all decoder layers; the default merges to a quarter.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        l1: first layer behind which tokens go; None is half of the depth (13 for Vicuna
            in the paper).
        step: share that goes per layer; None follows from `keep`.
        tau_imp: temperature, rounds and damping of the ranking.
        iters: temperature, rounds and damping of the ranking.
        d: temperature, rounds and damping of the ranking.
        metric: "features", or "keys" of the last vision block with merging before the
            projector, as for LLaVA-1.5.
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

class ATPLLaVA(TrainedMethod):
    """ATP-LLaVA: every picture and question get thresholds of their own, layer by layer.

    Args:
        keep: mean over all layers that the thresholds aim at; single pictures take more
            or less.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        weights: a folder that `save_pretrained` wrote, or the name of a shipped set
            such as "nano"; None takes the shipped set that fits the model; "random" or
            "random:SEED" are untrained parts.
        scores: "both" halves of s_r, or "self" or "cross" alone. None is what the
            weights were trained with ("cross" for the shipped ones), "both" for
            untrained ones.
        layers_of: 0-based layers behind which tokens go; None is 4, 14, 24 of 32 in
            proportion.
        lambda_sample: slope of the spatial score.
        rates: ascending shares, in (0, 1], of the rows and columns that the spatial
            score samples.
        temperature: of the soft masks, in training only.
        min_keep: never fewer visual tokens per sample, at least 1.
        hidden: width of untrained heads.
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

class CATP(Method):
    """CATP: keep what covers each picture and fits its own words, then what the question calls for.

    Args:
        keep: mean over all decoder layers; the default is R = 0.778 at 32 layers.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        R: share of the tokens that goes, in [0, 1), half of it in front of the language
            model, in place of `keep`.
        K: layer, counted from 1, behind which demonstrations lose tokens; None is 6 of
            32 and in proportion.
        lambda1: weight of the similarity to the paired text.
        lambda2: weight of the similarity to the query's sample.
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

class CoViPAL(TrainedMethod):
    """CoViPAL: a small trained module reads pictures and text and says which visual tokens matter.

    Args:
        keep: mean share or count over all layers; at boundary 0 it is the paper's r.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        weights: a folder that `save_pretrained` wrote, or the name of a shipped set
            such as "nano"; None takes the shipped set that fits the model; "random" or
            "random:SEED" are untrained parts.
        boundary: ascending layers in front of which tokens go, one module each.
        ppm: "cross": visual tokens attend to text. "mixer": to each other too, as in a
            later project, where it has inner=512, blocks=4, heads=8.
        inner: width of an untrained module, a multiple of `heads`.
        blocks: depth of an untrained module.
        heads: attention heads of an untrained module.
        temperature: T of the soft choice, in training only.
        eps: added to m before the logarithm, in training only.
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

class DART(Method):
    """DART: drop the visual tokens that duplicate a few pivots, from an early decoder layer on.

    Args:
        keep: share or count per visual item that goes on; 1 - R of the paper.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        pruning_loc: l, the first decoder layer with fewer tokens.
        pivot_image_token: visual pivots.
        pivot_text_token: text pivots.
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

class DivPrune(Method):
    """DivPrune: keep the tokens that differ most from each other, because coverage is what
    survives.

    Args:
        keep: tokens that survive per visual item; an int counts, a float in (0, 1] is a
            share.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        per_crop: every crop or frame is a pool of its own with an even share; newlines
            are dropped.
        protect: newlines are always kept, as part of the budget.
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

class Downsample(Method):
    """Downsample: make the picture smaller before it is encoded, because that saves the encoder
    too.

    Args:
        keep: tokens that survive per visual item; an int counts, a float in (0, 1] is a
            share.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        stretch: how far the aspect ratio may go to come nearer to the budget, at least
            1.
    """

    keep: Keep
    positions: str
    stretch: float
    def __init__(
        self, *, keep: Keep = 0.25, positions: str = "native", stretch: float = 1.25
    ) -> None: ...

class DyMU(Method):
    """DyMU: merge patches that are alike as each picture allows, and attend as if none had been.

    Args:
        keep: patches of each crop or frame that leave the tower; with thresholds, on
            average.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        thresholds: one cosine per block that merges, from `calibrate` or the path of a
            JSON file with what `to_dict` of its result gives; 1.0 merges nothing.
        merge_mode: "instance_level" leaves thresholds aside, so that the budget is
            known beforehand.
        r_total: patches that merge, in place of `keep`.
        r_schedule: "constant", "linear" (falling) or "reverse_linear" merges over the
            blocks.
        max_r_per_instance_ratio: most merges of a picture in a block, as a multiple of
            the mean; for thresholds, without which every picture merges the mean.
        repeat_merged_tokens: virtual unmerging in the language model.
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

class DyVTE(TrainedMethod):
    """DyVTE: let all visual tokens go once the text has taken what it needs, layer by layer asked.

    Args:
        keep: mean over all layers that no sample exceeds; the default leaves it to the
            gates.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        weights: a folder that `save_pretrained` wrote, or the name of a shipped set
            such as "nano"; None takes the shipped set that fits the model; "random" or
            "random:SEED" are untrained parts.
        exit_bias: added to exit - stay; above 0 pictures go earlier.
        hidden: width of untrained gates.
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

class ExplainCompress(TrainedMethod):
    """Explainability-guided compression: keep what a small network expects the answer to depend on.

    Args:
        keep: share or count per visual item that enters the first layer; rho of the
            paper.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        weights: a folder that `save_pretrained` wrote, or the name of a shipped set
            such as "nano"; None takes the shipped set that fits the model; "random" or
            "random:SEED" are untrained parts.
        channels: widths of the convolutions of an untrained network.
        heads: the decoder's number of heads, where each is an input of its own; None is
            their mean, as in the paper. Weights that are loaded bring their own.
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

class FastV(Method):
    """FastV: drop the visual tokens that an early decoder layer hardly looks at, from the next one
    on.

    Args:
        keep: share or count per visual item that goes on from layer k; 1 - R of the
            paper.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        k: the first decoder layer with fewer tokens.
        seed: of the random subset at k = 0.
    """

    keep: Keep
    positions: str
    k: int
    seed: int
    def __init__(
        self, *, keep: Keep = 0.5, positions: str = "original", k: int = 2, seed: int = 0
    ) -> None: ...

class FasterVLM(Method):
    """FasterVLM: keep the patches that the vision tower's class token attends to most.

    Args:
        keep: tokens that survive per visual item; an int counts, a float in (0, 1] is a
            share.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        score: "cls", "received", or "auto" for "cls" where the tower has a class token.
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

class FoPru(Method):
    """FoPru: keep the patches, or the whole rows of patches, that matter to other patches.

    Args:
        keep: tokens that survive per visual item; an int counts, a float in (0, 1] is a
            share.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        strategy: "rank" or "row".
        score: "variance" for what varies more, "received", "given", or "cls" for the
            class token's.
        layer: vision layer, negative from the end.
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

class FourierVLM(Method):
    """FourierVLM: keep the low spatial frequencies, because there most of a picture's energy lies.

    Args:
        keep: tokens that survive per visual item; an int counts, a float in (0, 1] is a
            share.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        reserve: rows and columns that every crop or frame keeps, in place of `keep`;
            one number for both, or a pair.
        ratio: share of its rows and of its columns that each frame keeps, in place of
            `keep`.
        norm: "ortho", or None for the plain DCT.
        preserve_mean: constants stay as they are.
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

class GSearch(Method):
    """G-Search and P-Sigmoid: a schedule over depth that was searched for, no guess at three
    layers.

    Args:
        keep: mean share or count over all decoder layers, met by the sigmoid.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        schedule: rate of every layer, in place of `keep`; the first is 1, none rises.
        kappa: slope of the sigmoid per layer, below 0; near 0 it is flat, far below a
            step.
        floor: smallest rate, in [0, 1).
        rows: query rows of the attention: "text" behind the picture, or the "last"
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

class GlobalCom2(Method):
    """GlobalCom2: let the overview of a tiled picture say how much, and what, each crop keeps.

    Args:
        keep: r, share of patches kept; newlines come on top.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        temperature: tau of the allocation.
        thumbnail_order: "score" reads the overview best first, "raster" in reading
            order.
        placement: "true" or "official", see above.
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

class GridPool(Method):
    """GridPool: average neighbouring patches, because a coarser picture needs no choice at all.

    Args:
        keep: tokens that survive per visual item; an int counts, a float in (0, 1] is a
            share.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
    """

    keep: Keep
    positions: str
    def __init__(self, *, keep: Keep = 0.25, positions: str = "native") -> None: ...

class HiRED(Method):
    """HiRED: share one budget out among overview and crops by content, and keep each one's best.

    Args:
        keep: tokens that survive per visual item; an int counts, a float in (0, 1] is a
            share.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        alpha: a, the overview's share.
        mark_ratio: share of its patches to mark, None for 1 - a.
        regions: "flat" gives crops equal runs of the overview's patches in reading
            order, as the official code does; "grid" gives each the part of the picture
            that it shows.
        content: "count" counts marks, "mass" sums the attention of all patches of a
            region.
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

class LLaVolta(Method):
    """LLaVolta: average runs of visual tokens inside the language model, where they repeat
    themselves.

    Args:
        keep: share or count per visual item that goes on from `layer`; 1 / S of the
            paper.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        layer: K, the first decoder layer with fewer tokens; 16 is the light preset, and
            0 with packed positions pools what the projector gives.
        stride: S, in place of `keep`.
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

class LVLMCSP(Method):
    """LVLM_CSP: think coarsely with few visual tokens, finely with all, and end with almost none.

    Args:
        keep: mean share or count over all decoder layers, from which N_c = 2 N_p
            follow.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        selector:
        N_c: counts or shares of an item's tokens in their place.
        N_p: counts or shares of an item's tokens in their place.
        b1: boundaries; None is a quarter and a half of the depth.
        b2: boundaries; None is a quarter and a half of the depth.
        init: "embed" or "residual".
        full_last_layers: never prune.
        seed: of the draw.
        segmenter: (row, item, h, w) -> masks (O, h, w) of the item's instances.
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

class PyramidDrop(Method):
    """PyramidDrop: drop visual tokens in stages, because they grow redundant with depth.

    Args:
        keep: mean share or count over all decoder layers, from which lambda follows.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        layer_list: ascending boundaries; None is at a quarter, a half and three
            quarters of the depth.
        image_token_ratio_list: share of the tokens that goes on at each boundary, in
            place of `keep`.
        min_tokens: never fewer per sample.
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

class Random(Method):
    """Random: keep patches drawn at random, because every rule must at least beat chance.

    Args:
        keep: tokens that survive per visual item; an int counts, a float in (0, 1] is a
            share.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        seed: another seed draws anew.
    """

    keep: Keep
    positions: str
    seed: int
    def __init__(self, *, keep: Keep = 0.25, positions: str = "native", seed: int = 0) -> None: ...

class SparseVLM(Method):
    """SparseVLM: keep what the telling words of the question look at, and recycle some of the rest.

    Args:
        keep: mean share or count over all decoder layers; the default is 192 of 576.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        pruning_layers: layers behind which tokens go; None is 2, 6, 15 of 32 and in
            proportion.
        retained: tokens per picture that stay behind each, merged ones on top, in place
            of `keep`: (300, 200, 110), (303, 110, 36) or (66, 30, 17) in the paper.
        recycle: merge some of the rest.
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

class TCA(Method):
    """TCA: keep what the class token attends to, average what it doubts, sum up the rest.

    Args:
        keep: patches of each crop or frame that leave the tower; a count counts those
            of one view.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        delta: share that goes per condensing layer, in place of `keep` (0.1 and 0.035
            in the paper; 0 leaves the tower whole).
        drop_loc: condensing layers, of a tower of 12.
        centers: averages made of the tokens in doubt.
        rank: "mean_attn", or "head_rank", the mean over heads of ranks.
        reservoir_size: samples kept per class of a stream, 0 for no adaptation.
        scale: spread of the weights of layers, weight and sharpness of the correction.
        lam: spread of the weights of layers, weight and sharpness of the correction.
        beta: spread of the weights of layers, weight and sharpness of the correction.
        gate: "all" refreshes the anchors when all classes seen have two samples,
            "class" those of each class that has.
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

class TCLLaVA(Method):
    """TC-LLaVA: tokens of a frame share a moment and see each other; time and order both turn.

    Args:
        keep: tokens that survive per visual item; an int counts, a float in (0, 1] is a
            share.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        gamma: weight of the moment in the position.
        block_mask: frames see themselves both ways.
        text_temporal: "advance" moves on by one for each word, "zero_delta" for frames
            only.
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

class ToMe(Method):
    """ToMe: merge the most similar tokens in every block of the vision tower, because they repeat.

    Args:
        keep: patches of each crop or frame that leave the tower; a count counts those
            of one view.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        r: merges per block in place of `keep`: an int for every block, a pair (r,
            inflection) with a float inflection from -1.0 (falling) to 1.0 (rising), or
            a tuple of counts block by block.
        kth: in place of `keep`, one merge in the first block: every patch joins the
            most similar one of each kth, so that a view of n patches leaves it with n
            // kth.
        prop_attn: merged tokens count by their size in attention; False for towers
            trained with merges.
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

class TransPrune(Method):
    """TransPrune: keep the visual tokens that the layers still change, and that the question looks
    at.

    Args:
        keep: mean share or count over all decoder layers, from which the ratios follow.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        pruning_layer_list: ascending boundaries; None scales the paper's with the
            depth.
        accumulating_layer_list: layers, counted from 1, whose transitions are summed;
            None is from the first boundary to the last.
        image_token_ratio_list: share that goes on at each boundary, in place of `keep`.
        alpha: weight of the transitions.
        use_iga: False leaves the attention out.
        direction: "signed" or "abs".
        softmax_over: "all" or "visual".
        eps: of the sums.
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

class Uniform(Method):
    """Uniform: keep every so-many-th patch, because spreading evenly needs no knowledge at all.

    Args:
        keep: tokens that survive per visual item; an int counts, a float in (0, 1] is a
            share.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
    """

    keep: Keep
    positions: str
    def __init__(self, *, keep: Keep = 0.25, positions: str = "native") -> None: ...

class VTCCLS(Method):
    """VTC-CLS: keep the patches that the class token attends to most, summed over late vision
    layers.

    Args:
        keep: tokens that survive per visual item; an int counts, a float in (0, 1] is a
            share.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        layer: first vision layer s of the slice [s : -1]; -8 is layer 16 of 24.
        reduce_layers:
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

class VideoLLMMoD(TrainedMethod):
    """VideoLLM-MoD: in every second decoder layer only some visual tokens of each frame are
    processed.

    Args:
        keep: mean share or count over all decoder layers; 0.6 is the paper's keep_ratio
            of 0.2.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        weights: a folder that `save_pretrained` wrote, or the name of a shipped set
            such as "nano"; None takes the shipped set that fits the model; "random" or
            "random:SEED" are untrained parts.
        keep_ratio: share of a frame's tokens that an MoD layer processes, in place of
            `keep`.
        placement: MoD layers: "interleaved", "all", "deep" or "interleaved-deep".
        selector: "learned", or without weights "random", "uniform" and "skip", by which
            no visual token runs in MoD layers: layer skipping, and with "deep" early
            exit.
        gate: r as it is ("raw"), or its sigmoid.
        seed: of the "random" selector.
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

class VisPruner(Method):
    """VisPruner: keep half of the budget for attended patches, half for patches unlike each other.

    Args:
        keep: 128 of 576 by default.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        important_ratio: r, the attended share.
        round_size: patches removed between two splits.
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

class VisionDrop(Method):
    """VisionDrop: keep what visual tokens see in each other, since text looks at the wrong ones.

    Args:
        keep: mean over all decoder layers; the default lets 48 of 576 enter, and 32 on
            average.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        contextual: merged tokens of each crop or frame that enter; None is an eighth.
        mean_preserving: a contextual token is the mean of all its members, where the
            official sum of target and mean about doubles its norm.
        dominant: tokens of each crop or frame that enter as they are, the class token
            counted, in place of `keep`.
        layer_list: boundaries inside the language model; None is quarter, half, three
            quarters.
        image_token_list: dominant and contextual tokens per picture behind each
            boundary.
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

class VisionZip(Method):
    """VisionZip: keep the patches that get the most attention, and merge all others into a few
    tokens.

    Args:
        keep: tokens that survive per visual item; an int counts, a float in (0, 1] is a
            share.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        contextual: merged tokens of each crop or frame; None is 10 of 64 tokens of its
            budget.
        mean_preserving: a contextual token is the mean of all its members, where the
            official sum of target and mean about doubles its norm.
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

class VistaLLaMA(Method):
    """Vista-LLaMA: every visual token is equally far from every query, however long the answer
    grows.

    Args:
        keep: tokens that survive per visual item; an int counts, a float in (0, 1] is a
            share.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        layer_list: decoder layers that attend so; None is all.
        visual_query: "raw" leaves the rotation out for all queries of visual keys,
            "rope" for text queries only.
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

class YOPO(Method):
    """YOPO: spend less on visual tokens in every layer, always the same, whatever the picture
    shows.

    Args:
        keep: share of the layers that compute anything visual; 1.0 cuts nothing
            anywhere.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        attncut_w: odd side of the window, None for no window.
        layercut_num: first layer without visual computation, in place of `keep`; the
            number of layers for none.
        headmask: per layer and head 1 or True where the head stays, None for all.
        mlpcut_ratio: all neurons over those that visual rows use, at least 1.
        renormalize: drop what is cut from layer `layercut_num` on, in place of zeroing
            its values.
        causal_neighbors: no patch sees a later one.
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

class ZipVL(Method):
    """ZipVL: per layer, attend only among the tokens that matter, and cache the rest in fewer bits.

    Args:
        keep: share of all tokens that is important in every layer, or a count per
            visual item beside all text; "adaptive" lets tau say how many, per layer and
            input. 1.0 is the bare model.
        positions: "original" leaves the gaps of dropped tokens in the position ids,
            "packed" renumbers rows that lose tokens. "native" is "original" in models
            that count positions in three rows (M-RoPE), where places in the picture are
            among them, and "packed" in all others.
        tau: share of attention that important tokens hold.
        probes: last and random tokens whose rows count.
        bits: of important and of other tokens, from 2, 4, 8 and 16, which leaves
            numbers as they are; None is (4, 2), and 16 with `evict`.
        streaming_gap: new tokens that are cached as they are until so many have come.
        evict: drop the others from the cache.
        denominators: "exact" is how many probes see a token, "zipcache" how many tokens
            do.
        seed: of the random ones.
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
