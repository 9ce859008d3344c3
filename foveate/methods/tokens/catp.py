"""Prune for in-context prompts: by coverage before the LLM, by relevance to the query inside it.

"CATP: Contextually Adaptive Token Pruning for Efficient and Enhanced Multimodal In-Context
Learning", AAAI 2026, arXiv 2508.07871.

Rule: a prompt has demonstrations and a query, each an image with text. Before the LLM, per image
(or per crop or frame), a set Y is selected greedily:

    argmax_Y sum_x max_{y in Y} s(y, x) + lambda1 sum_{y in Y} s(y, v), s = (cos + 1) / 2

where x runs over the tokens of the image, and v is the mean embedding of the text after it. After
layer K, counted from 1, the tokens of all demonstrations are ranked together by

    max(0, A_K - A_{K-1}) + lambda2 cos(h, mean of the query's hidden states)

where h is the hidden state of the token, and A_l is the attention that it receives from the last
prompt token in layer l. With K = 1 there is no earlier layer, and A_1 replaces the difference.
After layer K + 1, the tokens of the query's image are ranked by cos(h, mean hidden state of the
demonstrations).

Needs: text embeddings; one row of attention in two LLM layers.

Cost: one similarity matrix of all pairs of tokens, and one pass over it per kept token.

Differences: no official code exists. The paper selects over whole images; here each crop or frame
selects among its own tokens, with an even share of the budget. The last image is the query's.
Without demonstrations, the text replaces them. Inside the LLM positions do not change. `keep` is
the mean over the LLM layers; `R` is the paper's parameter.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.CATP(keep=0.5)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from foveate.budget import Keep
from foveate.errors import BudgetError, InvalidParameter, UnsupportedCall
from foveate.method import register
from foveate.methods.layers.base import beyond_depth
from foveate.methods.tokens.base import is_everything
from foveate.methods.tokens.progressive import ProgressiveMethod
from foveate.ops.allocate import share_evenly, view_batches
from foveate.ops.facility import facility_location
from foveate.ops.farthest import gram
from foveate.ops.select import top_mask
from foveate.ops.transfer import on_device
from foveate.parts import BoundaryState, LayersPart, Part, Widths
from foveate.signals import DecoderHeads, Need, Signals, TextEmbeddings
from foveate.tokens import Grid, VisualTokens

# R = 0.778 at K = 6 of 32 layers with four demonstrations: mean cost of a token that enters.
HELD = (6 + (0.2 + 0.8 * 0.222 / 0.611) + 25 * 0.222 / 0.611) / 32


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class CATP(ProgressiveMethod):
    """CATP; the docstring of its module states its two stages.

    Attributes:
        keep: mean over all LLM layers; an int is a count per image or video, a float in (0, 1] a
            retention ratio. The default is R = 0.778 at 32 layers.
        R: share of the tokens that is pruned, in [0, 1), half of it before the LLM, instead of
            `keep`.
        K: layer, counted from 1, after which demonstrations are pruned; None is 6 of 32, scaled to
            the depth.
        lambda1: weight of the similarity to the text after the image.
        lambda2: weight of the similarity to the query.
    """

    slug = "catp"
    paper = "arXiv 2508.07871"
    prompt_agnostic = False
    drops_special = True
    per_view = True
    held = HELD

    keep: Keep = 0.611 * HELD
    R: float | None = None
    K: int | None = None
    lambda1: float = 0.7
    lambda2: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.R is not None and not 0 <= self.R < 1:
            raise InvalidParameter(f"R={self.R!r} is not valid: use 0 <= R < 1.")
        if self.K is not None and not self.K >= 1:
            raise InvalidParameter(
                f"K={self.K!r} is not valid: layers count from 1; use 1 or more."
            )

    def parts(self) -> tuple[Part, ...]:
        return (self, Contextual(self))

    @property
    def needs(self) -> tuple[Need, ...]:
        return (TextEmbeddings(paired=True),)

    def count(self, grid: Grid) -> int:
        if self.R is None or is_everything(self.keep, grid.n):
            return super().count(grid)
        n = int(grid.patches * (1 - self.R / 2) + 1e-9) if self.R else grid.n
        if n < grid.n:
            share_evenly(n, grid.views or (grid.patches,))
        return n

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return n * n * widths.model

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        b = len(tokens.features)
        if keep == tokens.n:
            return torch.arange(keep, device=tokens.features.device).expand(b, -1)
        x = normalize(tokens.features.float(), dim=2)
        text = normalize(signals[self.needs[0]].float().mean(1, keepdim=True), dim=2)
        # Without any text all tokens have equal similarity.
        fit = ((x @ text.nan_to_num().mT)[..., 0] + 1) / 2
        members, kept = tokens.by_view(), []
        shares = share_evenly(keep, [len(m) for m in members])
        for _, own, share in view_batches(members, shares):
            views = x[:, own].flatten(0, 1)
            bonus = self.lambda1 * fit[:, own].flatten(0, 1)
            picks = facility_location(gram(views).add_(1).div_(2), bonus, share)
            kept.append(own.repeat(b, 1).gather(1, picks).view(b, -1))
        return torch.cat(kept, 1).sort(1).values


@dataclass(frozen=True)
class Contextual(LayersPart):
    """The part of CATP inside the LLM."""

    method: CATP

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DecoderHeads(),)

    def boundaries(self, layers: int) -> tuple[int, ...]:
        if self.method.keep == 1.0 or self.method.R == 0:
            return ()
        k = self._layer(layers)
        return tuple(range(max(1, k - 1), k + 2))

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * widths.model

    def at_boundary(self, k: int, layers: int, state: BoundaryState) -> Tensor | None:
        turn = k - self._layer(layers)
        if turn <= 0:
            row = state.signals[DecoderHeads()].rows(state.last[:, None]).mean(1)[:, 0]
            if turn < 0:
                state.notes["row"] = row
                return None
        query = state.item.amax(1, keepdim=True)
        asked = state.visual & (state.item == query)
        context = state.visual & ~asked
        steps = torch.arange(state.item.shape[1], device=query.device)
        # The query starts with its image.
        begin = torch.where(asked, steps, len(steps)).amin(1, keepdim=True)
        if turn > 0:
            first = torch.where(context, steps, len(steps)).amin(1, keepdim=True)
            alone = ~context.any(1, keepdim=True)
            shots = (steps >= first) & (steps < begin) & state.valid
            around = torch.where(alone, state.valid & ~state.visual, shots)
            score = likeness(state.hidden, around)
            state.signals.record(score, asked)
            return top_mask(score, state.notes["query"], asked) | ~asked
        before = state.notes.get("row")
        if before is not None and before.shape != row.shape:
            raise UnsupportedCall(
                f"Another method drops tokens before layer {k - 1} or {k}, between the layers "
                "whose attention CATP compares; give CATP another K."
            )
        growth = row if before is None else (row - before).clamp(min=0)
        score = growth + self.method.lambda2 * likeness(
            state.hidden, (steps >= begin) & state.valid
        )
        state.signals.record(score, context)
        left, last = zip(*self._left(layers, state), strict=True)
        state.notes["query"] = on_device(last, score.device)
        return top_mask(score, on_device(left, score.device), context) | ~context

    def _layer(self, layers: int) -> int:
        k = max(1, round(layers * 6 / 32)) if self.method.K is None else self.method.K
        if k + 1 >= layers:
            raise beyond_depth("K", k, layers, layers - 2)
        return k

    def _left(self, layers: int, state: BoundaryState) -> Iterator[tuple[int, int]]:
        """Tokens of demonstrations and of the query's image that each row keeps at the end."""
        known = state.known
        for row, held in enumerate(known.held):
            query = max((i for i, n in enumerate(held) if n), default=0)
            # What shares are of, per item, and the share that is left of it.
            base, share = [*map(float, held)], 1.0
            if self.method.R is not None:
                given = held if known.patches is None else known.patches[row]
                base, share = [*map(self._whole, held, given)], 1 - self.method.R
            elif sum(held):
                share = self._share(layers, held[query], sum(held), len(held))
            total = sum(n for i, n in enumerate(base) if i != query)
            yield int(total * share + 1e-6), int(sum(base[query : query + 1]) * share + 1e-6)

    def _whole(self, held: int, given: int) -> float:
        """Tokens of which the first stage kept `held`; `given` if another method dropped some."""
        left = 1 - self.method.R / 2
        return given if int(given * left + 1e-9) == held else held / left

    def _share(self, layers: int, query: int, entered: int, items: int) -> float:
        """Ratio of what entered that is kept at the end, so that the mean over layers is `keep`."""
        k = self._layer(layers)
        wanted = self.method.share(entered, items) * entered * layers
        spent, rest = entered * k + query, entered - query + entered * (layers - k - 1)
        if wanted < spent - 1e-6:
            raise BudgetError(
                f"keep={self.method.keep} is out of reach: the layers up to K={k} alone cost a "
                f"mean retention ratio of {spent / layers / entered:.4g}; raise keep or lower K."
            )
        return min(1.0, (wanted - spent) / rest) if rest else 1.0


def likeness(hidden: Tensor, group: Tensor) -> Tensor:
    """Cosine (B, N) of every state (B, N, D) with the mean of those in group (B, N)."""
    weight = group.to(hidden.dtype) / group.sum(1, keepdim=True).clamp(min=1)
    mean = (weight[:, None] @ hidden).float()
    return (normalize(hidden.float(), dim=2) @ normalize(mean, dim=2).mT)[..., 0]
