"""Merge similar tokens in the vision encoder by threshold; unmerge them virtually in the LLM.

Wang et al., "DyMU: Dynamic Merging and Virtual Unmerging for Efficient VLMs", 2025, arXiv
2504.17040.

Rule: between attention and MLP of each block of the vision encoder, each token at an even place is
paired with the token at an odd place whose key (mean over heads) has the largest cosine. Every pair
above the threshold of the block is replaced by its mean, weighted by the number of patches of each.
The thresholds come from calibration on batches of images: in each batch, the most similar pairs are
merged until the budget of the block is met on average, and the threshold is the similarity of the
first pair that is not merged, mean over batches. So simple images keep fewer tokens and complex
images more, `keep` on average. In the LLM (virtual unmerging) a copy of every merged token stands
at each of its original positions: attention runs over that virtual sequence, and the output of a
token is the mean over its copies.

Needs: the keys of every block of the vision encoder, and thresholds from `DyMU.calibrate`. Without
thresholds each crop or frame keeps exactly its budget.

Cost: one similarity matrix of even x odd keys per block. In the LLM, attention over the original
length; all other operations run on the shorter sequence.

Differences: means divide by the exact number of patches in batches too. Single images and batches
keep tokens in the same order, so both give the same result. The budget is spread over the blocks
whose output is used.

    model, processor = foveate.mini("nano")
    images = [item.image() for item in foveate.mini.world.items("I1", "train", 64)]
    method = foveate.DyMU.calibrate(model, processor, images, keep=0.5)
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, method):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from foveate.attention_call import Attend, AttentionCall, Columns, Whole
from foveate.budget import Keep, resolve
from foveate.errors import BudgetError, InvalidParameter, UnsupportedCall
from foveate.method import Method, register
from foveate.methods.encoders.base import out_of_reach, view_shares, views_of
from foveate.ops.matching import (
    above,
    best_of_batch,
    bipartite_soft_matching,
    merge_chosen,
    pair_up,
    spread,
)
from foveate.ops.phases import laid_out, paired, phases
from foveate.ops.unmerging import averaged, gathered, stood, visible
from foveate.parts import BlockState, EncodersPart, Part, RulePart, Widths
from foveate.tokens import Grid


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class DyMU(Method, EncodersPart):
    """DyMU; the docstring of its module states the rule.

    Attributes:
        keep: tokens that enter the LLM, on average over images where thresholds are given; an int
            is a count per crop or frame, a float in (0, 1] a retention ratio.
        thresholds: one cosine per block that merges, from `calibrate`, or the path of a JSON file
            with the `to_dict` of a calibrated method; 1.0 merges nothing. None merges every image
            to exactly `keep`.
        merge_mode: "batch_level" uses the thresholds, "instance_level" ignores them, so that the
            number of tokens is known in advance.
        r_total: number of patches to merge per crop or frame, instead of `keep`.
        r_schedule: merges over the blocks: "constant", "linear" (falling) or "reverse_linear".
        max_r_per_instance_ratio: most merges of one image in one block, as a multiple of the mean,
            above 0; only with thresholds. None for no limit.
        repeat_merged_tokens: virtual unmerging in the LLM; False lets the LLM attend to merged
            tokens once.
    """

    slug = "dymu"
    paper = "arXiv 2504.17040"

    keep: Keep = 0.5
    positions: str = "original"
    thresholds: tuple[float, ...] | str | None = None
    merge_mode: Literal["batch_level", "instance_level"] = "batch_level"
    r_total: int | None = None
    r_schedule: Literal["constant", "linear", "reverse_linear"] = "constant"
    max_r_per_instance_ratio: float | None = None
    repeat_merged_tokens: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.thresholds, str):
            object.__setattr__(self, "thresholds", _read(self.thresholds))
        ratio = self.max_r_per_instance_ratio
        if self.r_total is not None and self.r_total < 0 or ratio is not None and not ratio > 0:
            raise InvalidParameter(
                f"r_total={self.r_total}, max_r_per_instance_ratio={ratio} are not valid: use an "
                "r_total of 0 or more and a ratio above 0."
            )

    def parts(self) -> tuple[Part, ...]:
        whole = isinstance(self.keep, float) and self.keep == 1 and not self.adaptive
        return (self,) if whole or not self.repeat_merged_tokens else (self, Unmerging(self))

    @property
    def adaptive(self) -> bool:
        """Whether the number of kept tokens depends on the image."""
        return self.thresholds is not None and self.merge_mode == "batch_level"

    @property
    def even(self) -> bool:  # type: ignore[override]
        return not self.adaptive

    def check(self, **base: int) -> None:
        # Not in __post_init__: during calibration there are no thresholds yet.
        if self.max_r_per_instance_ratio is not None and not self.adaptive:
            raise InvalidParameter(
                f"max_r_per_instance_ratio={self.max_r_per_instance_ratio} has no effect without "
                "thresholds, because every image merges the same number of tokens; calibrate "
                "thresholds, or use None."
            )

    def target(self, n: int) -> int:
        """Patches that remain of n in each crop or frame, on average where adaptive."""
        if self.r_total is None:
            return resolve(self.keep, n)
        if self.r_total >= n:
            raise BudgetError(
                f"r_total={self.r_total} is out of range: there are {n} patches; use at most "
                f"{n - 1}."
            )
        return n - self.r_total

    def shares(self, grid: Grid) -> tuple[int, ...] | None:
        if self.adaptive:
            return None
        if self.r_total is None:
            return view_shares(self.keep, grid)
        views = views_of(grid)
        self.target(max(views))
        return tuple(max(1, n - self.r_total) if n else 0 for n in views)

    def count(self, grid: Grid) -> int:
        if self.adaptive:
            raise UnsupportedCall(
                "With thresholds the number of tokens depends on the image and is not known in "
                "advance; use merge_mode='instance_level' for an exact budget."
            )
        return super().count(grid)

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        pairs = 0
        for r in spread(max(0, n - keep), max(1, widths.blocks), self.r_schedule):
            pairs += (n // 2) * (n - n // 2)
            n -= r
        return 2 * pairs * widths.head

    def planned(self, block: int, blocks: int, n: int) -> int:
        """Merges of a block by the schedule, for n patches that entered the first one."""
        return spread(n - self.target(n), blocks, self.r_schedule)[block]

    def most(self, block: int, blocks: int, state: BlockState) -> Tensor:
        """Largest number of pairs (B, 1) that each image may merge in a block."""
        half = (state.valid.sum(1, keepdim=True) - int(state.class_token)) // 2
        ratio = self.max_r_per_instance_ratio
        if ratio is None:
            return half
        return half.clamp(max=int(ratio * self.planned(block, blocks, state.entered)))

    def merge(self, block: int, blocks: int, state: BlockState) -> tuple[Tensor, int] | None:
        if self.adaptive:
            return self._above_threshold(block, blocks, state)
        self.check()
        n = state.hidden.shape[1] - state.class_token
        target = self.target(state.entered)
        left = blocks - block - 1
        r = spread(state.entered - target, blocks, self.r_schedule)
        # As planned, but at most half, and at least what later blocks could not catch up on.
        after = max(n - n // 2, min(state.entered - sum(r[: block + 1]), target << left))
        if after > target << left:
            raise out_of_reach(target, n, blocks - block)
        if after >= n:
            return None
        return bipartite_soft_matching(state.keys.mean(1), n - after, state.class_token)

    def _above_threshold(
        self, block: int, blocks: int, state: BlockState
    ) -> tuple[Tensor, int] | None:
        thresholds = self.thresholds if isinstance(self.thresholds, tuple) else ()
        if len(thresholds) != blocks:
            raise InvalidParameter(
                f"thresholds has {len(thresholds)} entries, but {blocks} blocks of this vision "
                "encoder merge; calibrate on this model."
            )
        idle = self.r_total is not None and not self.planned(block, blocks, state.entered)
        # Rounding may put the cosine of equal keys above 1.
        if idle or thresholds[block] >= 1:
            return None
        best, partner = pair_up(state.keys.mean(1), state.class_token, state.valid)
        chosen = above(best, thresholds[block], self.most(block, blocks, state))
        if not bool(chosen.any()):
            return None
        return merge_chosen(chosen, best, partner, state.valid, state.class_token)

    @classmethod
    def calibrate(
        cls,
        model: Any,
        processor: Any,
        images: Sequence[Any],
        *,
        batch_size: int = 64,
        progress: bool = False,
        **parameters: Any,
    ) -> DyMU:
        """The method with thresholds for which `images` keep `keep` on average on this model.

        Args:
            model: the model to calibrate for.
            processor: its processor.
            images: a few hundred or more images of the expected kind.
            batch_size: images per batch; the thresholds are means over batches.
            progress: show a progress bar.
            parameters: parameters of the method.
        """
        from foveate.calibration import encode

        watch = Watching(method=cls(**parameters))
        encode(model, processor, images, watch, batch_size=batch_size, progress=progress)
        found = (sum(s) / len(s) for _, s in sorted(watch.samples.items()))
        return replace(watch.method, thresholds=tuple(round(x, 6) for x in found))


@dataclass(frozen=True)
class Unmerging(RulePart):
    """Virtual unmerging: in the LLM every merged token stands at all its original positions.

    Keys are cached once per token, without rotation. For one layer at a time they are copied and
    rotated to their positions, so the KV cache is as short as the prompt. New tokens sum the
    attention weights of all positions of a value instead of copying it.
    """

    method: DyMU

    virtual = True

    @property
    def owner(self) -> Part:
        return self.method

    def raw(self, columns: Columns) -> Tensor:
        return torch.ones_like(columns.valid)

    def attend(self, call: AttentionCall, proceed: Attend) -> Tensor:
        virtual = call.once(lambda: _virtual(call))
        held, rotate = virtual.held, call.seam.rotate
        if call.prefill:
            query = rotate(stood(call.query, held), *virtual.tables)
        else:
            query = call.turned(call.query)
        wide = replace(
            call, query=query, mask=virtual.mask, queries=virtual.queries, keys=virtual.keys
        )
        if call.seam.alone and not call.prefill:
            # With few query rows, moving weights is cheaper than copying all values.
            weights = wide.weights(virtual.products(wide))
            return call.weighed(gathered(weights, held, call.key.shape[2]))
        wide = replace(wide, key=rotate(stood(call.key, held), *virtual.tables))
        out = proceed(replace(wide, value=stood(call.value, held)))
        if not call.prefill:
            return out
        _account(call, held >= 0)
        b, n, heads, d = out.shape
        unique = averaged(out.flatten(2), held, call.query.shape[2])
        return unique.view(b, -1, heads, d)


@dataclass(frozen=True, eq=False)
class Virtual:
    """The virtual sequence of one call, shared by all layers that hold the same tokens.

    held (B, N): the column that stands at each position. tables: cosines and sines of the
    positions. phases: the same as complex numbers, for decoding and for models that rotate with
    complex numbers.
    """

    held: Tensor
    tables: tuple[Tensor, Tensor]
    phases: Tensor | None
    mask: Tensor | None
    queries: Columns
    keys: Columns

    def products(self, call: AttentionCall) -> Tensor:
        """Scaled products (B, H, q, N) of queries with the unique keys, rotated to all places."""
        if self.phases is None:
            return replace(
                call, key=call.seam.rotate(stood(call.key, self.held), *self.tables)
            ).products(call.query)
        key = laid_out(stood(paired(call.key), self.held) * self.phases)
        return replace(call, key=key).products(laid_out(paired(call.query)))


def _virtual(call: AttentionCall) -> Virtual:
    whole = call.whole()
    held, where = whole.held, whole.positions
    alive, own = held >= 0, held.clamp(min=0)
    if call.prefill and not _in_place(call, whole):
        raise UnsupportedCall(
            "DyMU's virtual unmerging needs the original position ids, but a method renumbers "
            "them; give the other methods positions='original', or use repeat_merged_tokens=False."
        )
    steps = torch.arange(held.shape[1], device=held.device).expand_as(held)
    keys = replace(call.keys.take(own).but(alive), at=steps, positions=where)
    queries, rows = keys, own
    if not call.prefill:
        q = call.query.shape[2]
        queries, rows = keys.take(steps[:, -q:]), steps[:, :q]
    mask = call.mask
    # While decoding the mask is always made: asking the device would sync.
    if mask is not None or _slides(call, held) or not call.prefill or not bool(alive.all()):
        mask = _mask(call, replace(call, queries=queries, keys=keys), held, rows)
    tables, turns = call.seam.tables(where), None
    if not call.prefill:
        like = call.key.new_empty(*held.shape, call.key.shape[-1])[:, None]
        turns = phases(lambda x: call.seam.rotate(x, *tables), like)
    return Virtual(held, tables, turns, mask, queries, keys)


def _in_place(call: AttentionCall, whole: Whole) -> bool:
    """Whether the last token of each row has a position id that it stood for before merging."""
    held, now = whole.held, call.queries.positions
    last = held.shape[1] - 1 - (held >= 0).flip(1).long().argmax(1, keepdim=True)
    own = held.gather(1, last)
    now = now.gather(-1, own.clamp(min=0).expand(*now.shape[:-2], -1, -1))
    # All axes of M-RoPE must agree.
    same = (whole.positions == now).view(-1, *held.shape).all(0)
    # A row that is all padding has no last token. A merged token stands for several ids.
    return bool(((same & (held == own)).any(1, keepdim=True) | (own < 0)).all())


def _slides(call: AttentionCall, held: Tensor) -> bool:
    """Whether the virtual sequence is longer than the window; the layer may then have no mask."""
    return call.window is not None and held.shape[1] > call.window


def _mask(call: AttentionCall, virtual: AttentionCall, held: Tensor, rows: Tensor) -> Tensor | None:
    if "flash" in call.seam.kind and not _slides(call, held):
        return (held >= 0).long()
    seen = call.seen().expand(len(held), -1, -1, -1)
    at = call.queries.at, call.keys.at
    return virtual.masked(visible(seen, held, rows, at, call.window, call.prefill)).mask


def _account(call: AttentionCall, alive: Tensor) -> None:
    """Count the attention pairs of the virtual sequence, which is longer than the merged one."""
    few, many = (
        n * (n if call.window is None else n.clamp(max=call.window))
        for n in (call.queries.valid.sum(1), alive.sum(1))
    )
    call.account(4 * call.query.shape[1] * call.query.shape[3] * (few - many))


@dataclass(frozen=True, kw_only=True, repr=False)
class Watching(Method, EncodersPart):
    """Merges the r best pairs per image of each batch and records where the cut falls.

    samples: per block and batch, the cosine of the first pair that was not merged.
    """

    slug = "dymu_watching"

    positions: str = "original"
    method: DyMU = field(default_factory=DyMU)
    samples: dict[int, list[float]] = field(default_factory=dict)

    def merge(self, block: int, blocks: int, state: BlockState) -> tuple[Tensor, int] | None:
        m, samples = self.method, self.samples.setdefault(block, [])
        b, n, _ = state.hidden.shape
        r = min(m.planned(block, blocks, state.entered), (n - state.class_token) // 2)
        if r == 0:
            samples.append(1.0)
            return None
        best, partner = pair_up(state.keys.mean(1), state.class_token, state.valid)
        chosen, cut = best_of_batch(best, r * b, m.most(block, blocks, state))
        samples.append(cut)
        return merge_chosen(chosen, best, partner, state.valid, state.class_token)


def _read(path: str) -> tuple[float, ...]:
    try:
        with open(path, encoding="utf-8") as file:
            return tuple(float(x) for x in json.load(file)["thresholds"])
    except FileNotFoundError:
        raise InvalidParameter(
            f"thresholds={path!r} is not valid: there is no file {path!r}; check the path."
        ) from None
    except OSError as error:
        raise InvalidParameter(
            f"thresholds={path!r} can't be read ({error.strerror}); check the file."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise InvalidParameter(
            f"thresholds={path!r} is not the file of a calibrated DyMU; use the file that "
            "'foveate calibrate' wrote, or write "
            "json.dumps(method.to_dict()) of the method that DyMU.calibrate returns."
        ) from None
