"""Sparse attention in prefill and a mixed-precision KV cache, by importance of tokens per layer.

He et al., "ZipVL: Efficient Large Vision-Language Models with Dynamic Token Sparsification and KV
Cache Compression", 2024, arXiv 2410.08584.

Rule: in each LLM layer, a_j is the attention that token j receives from the last 64 tokens and from
64 random ones, mean over heads. p is the smallest number such that the p largest a_j sum to a share
tau of all attention. The important tokens are the p with the largest

    a_j / (number of these query tokens that can attend to j)

During prefill, important tokens attend to each other; the attention output of the others is zero in
this layer. Keys and values of important tokens are cached in 4 bits, those of the others in 2 bits:
keys per channel, values per token with one scale per channel. While decoding, the attention of the
newest token selects in the same way among every 100 new tokens.

Needs: 128 rows of attention in every LLM layer.

Cost: these rows, and unpacking the cache at every decoding step. Where no other method needs the
attention, new tokens attend to the packed values directly.

Differences: there is one set of important tokens per layer, and quantisation ranges are per sample;
the authors' quantiser (ZipCache) has one set per key head. Padding does not count as tokens. Layers
with a sliding window keep their cache as it is. The last token is always important. `evict` is the
second version of the paper.

Notes: `keep=1.0` is the full model, without sparse attention and without quantisation; `tau=1.0`
only quantises.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.ZipVL(tau=0.96)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from foveate.attention_call import Attend, AttentionCall
from foveate.budget import ADAPTIVE, Keep
from foveate.errors import InvalidParameter, UnsupportedCall
from foveate.method import Method, register
from foveate.ops.attention import Heads
from foveate.ops.importance import most_important, needed, probe_rows, received, seen_behind
from foveate.ops.packed import Packed, pack_chosen, pack_tokens
from foveate.ops.quantise import WIDTHS
from foveate.parts import CachesPart, CacheState, Part, RulePart, Widths


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class ZipVL(Method, RulePart):
    """ZipVL; the docstring of its module states the rule.

    Attributes:
        keep: important tokens in each LLM layer; a float in (0, 1] is a share of all tokens, text
            included, an int a count per image or video in addition to the number of text tokens;
            "adaptive" derives the number from `tau`, per layer and input. 1.0 is the full model.
        tau: share of the attention that important tokens must hold, in (0, 1]; used where `keep` is
            "adaptive".
        probes: numbers of last and of random query tokens that score, at least (1, 0).
        bits: bits of important and of other tokens in the cache, each 2, 4, 8 or 16 (16:
            unchanged); None is (4, 2), and 16 with `evict`.
        streaming_gap: new tokens that are cached unchanged before they are quantised together, at
            least 1.
        evict: drop unimportant tokens from the cache.
        denominators: divide attention by the number of query tokens that attend to a token
            ("exact"), or by the number of all later tokens ("zipcache").
        seed: seed of the random query tokens.
    """

    slug = "zipvl"
    paper = "arXiv 2410.08584"
    prompt_agnostic = False
    adaptive = True
    prompt_only = True

    keep_means = "important tokens in each LLM layer"

    keep: Keep | Literal["adaptive"] = ADAPTIVE
    positions: str = "original"
    tau: float = 0.975
    probes: tuple[int, int] = (64, 64)
    bits: tuple[int, int] | None = None
    streaming_gap: int = 100
    evict: bool = False
    denominators: Literal["exact", "zipcache"] = "exact"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tau <= 1:
            raise InvalidParameter(f"tau={self.tau!r} is not valid: use 0 < tau <= 1.")
        if self.bits is not None and not {*self.bits} <= {*WIDTHS, 16}:
            raise InvalidParameter(f"bits={self.bits!r} is not valid: use a pair of 2, 4, 8 or 16.")
        if self.probes[0] < 1 or self.probes[1] < 0 or self.streaming_gap < 1:
            raise InvalidParameter(
                f"probes={self.probes!r}, streaming_gap={self.streaming_gap!r} are not valid: use "
                "at least (1, 0) probes and a streaming_gap of 1 or more."
            )

    @property
    def whole(self) -> bool:
        """Whether the method changes nothing: the full model."""
        return isinstance(self.keep, float) and self.keep == 1

    def parts(self) -> tuple[Part, ...]:
        return (self, MixedBits(self))

    def layers(self, n: int) -> tuple[int, ...]:
        return () if self.whole else tuple(range(n))

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * min(n, sum(self.probes)) * n * widths.model

    def attend(self, call: AttentionCall, proceed: Attend) -> Tensor:
        if not call.entire:
            raise UnsupportedCall(
                f"ZipVL needs the whole attention of layer {call.layer}, but a method before it "
                "computes attention in blocks; put ZipVL first in the composition."
            )
        valid, heads = call.queries.valid, call.heads()
        lengths = call.queries.counts[0]
        rows, real = probe_rows(valid, *self.probes, self.seed + call.layer, lengths)
        mass, score = self.score(heads, rows, real)
        call.record(score)
        p = self.how_many(mass, valid, call.queries.item)
        # Text-only samples keep full attention, whatever else is in the batch.
        p = torch.where(call.queries.visual.any(1), p, valid.sum(1).to(p.dtype))
        chosen = most_important(score, p, valid)
        # The only host sync: the number of tokens that this layer needs.
        counts = p.tolist()
        call.notes[f"layer {call.layer}"] = chosen
        call.notes[f"counts {call.layer}"] = lengths, counts
        pairs = p * (p if call.window is None else p.clamp(max=call.window))
        call.account(call.pair_cost() * (call.bare_pairs() - pairs))
        index = chosen.long().argsort(dim=1, descending=True, stable=True)[:, : max(counts)]
        inside = torch.arange(index.shape[1], device=p.device) < p[:, None]
        out = proceed(call.square(index, None if min(counts) == max(counts) else inside))
        out = out.masked_fill(~inside[..., None, None], 0)
        full = out.new_zeros(len(out), valid.shape[1], *out.shape[2:])
        return full.scatter(1, index[..., None, None].expand_as(out), out)

    def score(self, heads: Heads, rows: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Attention (B, N) from query tokens `rows` (B, R), in sum and per query that sees a token.

        real (B, R) bool: rows that are no padding.
        """
        mass, sees = received(heads, rows, real)
        sees = sees if self.denominators == "exact" else seen_behind(heads.valid)
        return mass, mass / sees.clamp(min=1)

    def how_many(self, mass: Tensor, valid: Tensor, item: Tensor) -> Tensor:
        """Number (B,) of important tokens. item (B, N): image or video of each, -1 for text."""
        if self.keep == ADAPTIVE:
            return needed(mass, valid, self.tau)
        n = valid.sum(1)
        if isinstance(self.keep, int):
            text = (valid & (item < 0)).sum(1)
            return torch.minimum(text + self.keep * (item.amax(1) + 1), n).clamp(min=1)
        return (n * float(self.keep)).round().long().clamp(min=1)


@dataclass(frozen=True)
class MixedBits(CachesPart):
    """The KV cache side of ZipVL."""

    method: ZipVL

    @property
    def owner(self) -> Part:
        return self.method

    @property
    def gap(self) -> int | None:  # type: ignore[override]
        return None if self.method.evict and self.method.bits is None else self.method.streaming_gap

    def hold(self, state: CacheState) -> Packed | None:
        m = self.method
        if m.whole:
            return None
        if state.attention is None:
            chosen = state.notes.pop(f"layer {state.layer}")
            counts = state.notes.pop(f"counts {state.layer}")
            if m.evict:
                bits = 16 if m.bits is None else m.bits[0]
                bits = [bits if pictured else 16 for pictured in state.pictured]
                return pack_chosen(state.keys, state.values, chosen, bits, counts[1])
        else:
            mass, counts = state.attention.mean(1), None
            chosen = most_important(mass, m.how_many(mass, state.valid, state.item), state.valid)
        bits = m.bits or (4, 2)
        bits = [bits if pictured else (16, 16) for pictured in state.pictured]
        return pack_tokens(state.keys, state.values, state.valid, chosen, bits, counts)
