"""Prune visual tokens inside the LLM with learned thresholds that adapt to image and question.

Ye et al., "ATP-LLaVA: Adaptive Token Pruning for Large Vision Language Models", CVPR 2025, arXiv
2412.00447.

Rule: after each of a few layers every visual token i has a redundancy score s_r and a spatial score
s_sp:

    s_r = (s_self + s_cross) / 2
    s_self(i) = (mean over j of q_j) k_i / sqrt(d)
    s_cross(i) = attention from the text after the image to i
    s_sp = 1 - lambda R^2

where q and k are queries and keys of the layer, j runs over the visual tokens, d is the head width,
and s_self and s_cross are scaled to [0, 1] per sample. R is the coarsest of the sampling rates 1/8,
1/4 and 1/2 for which the token is on every (1/R)-th row and column of the original grid; tokens on
none of them have s_sp = 0. Small learned heads predict two thresholds theta_r and theta_s from
statistics of these scores. A token is kept where s_r > theta_r or s_sp > theta_s. `foveate train
--method atp_llava` trains the heads with soft masks and a loss on the budget, and keeps the LLM
frozen; the paper trains the LLM too. The shipped weights were trained with s_r = s_cross, because
s_self did not improve the frozen embedded models.

Needs: queries and keys of the LLM layers after which tokens are pruned.

Cost: one row of attention per text token after the image, at each of these layers.

Differences: no official code exists. The normalisation of scores, the statistics, and the form of
the heads are choices of this implementation: a head moves theta_r away from the quantile that gives
the wanted ratio, and an untrained head does not move it. The ratio falls by the same factor at each
pruning layer.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.ATPLLaVA(keep=0.5)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from foveate.budget import MEAN_OVER_LAYERS, Keep
from foveate.errors import InvalidParameter
from foveate.method import register
from foveate.methods.layers.base import beyond_depth, ratios_of_share, rows_share
from foveate.ops.attention import Heads, paid
from foveate.ops.select import columns_of, top_mask
from foveate.ops.transfer import on_device
from foveate.parts import BoundaryState, LayersPart, Soft, Widths
from foveate.signals import DecoderHeads, Need
from foveate.trained import TrainedMethod

QUANTILES = 8
# Initial bias of the spatial threshold: above every spatial score.
CLOSED = 5.0


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class ATPLLaVA(TrainedMethod, LayersPart):
    """ATP-LLaVA; the docstring of its module states the rule.

    Attributes:
        keep: mean over all LLM layers, as a target; an int is a count per image or video, a float
            in (0, 1] a retention ratio. Single inputs keep more or fewer tokens.
        scores: parts of s_r: "both", "self" or "cross". None is what the weights were trained with
            ("cross" for the shipped ones), and "both" for untrained heads.
        layers_of: 0-based layers after which tokens are pruned, ascending; None is 4, 14, 24 of 32,
            scaled to the depth.
        lambda_sample: lambda, the slope of the spatial score.
        rates: ascending ratios in (0, 1] of the rows and columns that the spatial score samples.
        temperature: temperature of the soft masks, above 0; in training only.
        min_keep: smallest number of visual tokens per sample, at least 1.
        hidden: width of the heads where they are untrained, at least 1.
    """

    slug = "atp_llava"
    paper = "arXiv 2412.00447"
    prompt_agnostic = False
    keep_means = MEAN_OVER_LAYERS
    shapes = ("layers_of", "hidden", "scores")
    agreed = ("layers_of",)

    keep: Keep = 0.25
    positions: str = "original"
    scores: Literal["both", "self", "cross"] | None = None
    layers_of: tuple[int, ...] | None = None
    lambda_sample: float = 3.0
    rates: tuple[float, ...] = (1 / 8, 1 / 4, 1 / 2)
    temperature: float = 10.0
    min_keep: int = 1
    hidden: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        found = self.layers_of
        if found is not None and (not found or list(found) != sorted({*found}) or found[0] < 0):
            raise InvalidParameter(
                f"layers_of={found} is not valid: use ascending layers from 0 on."
            )
        if list(self.rates) != sorted(self.rates) or not all(0 < r <= 1 for r in self.rates):
            raise InvalidParameter(
                f"rates={self.rates} is not valid: use ascending ratios in (0, 1]."
            )
        if self.min_keep < 1 or self.hidden < 1 or not self.temperature > 0:
            raise InvalidParameter(
                f"min_keep={self.min_keep}, hidden={self.hidden}, temperature={self.temperature} "
                "are not valid: use min_keep >= 1, hidden >= 1 and temperature > 0."
            )

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DecoderHeads(),)

    def build(self, width: int, layers: int) -> nn.Module:
        return nn.ModuleList(Thresholds(self.hidden) for _ in self._boundaries(layers))

    def boundaries(self, layers: int) -> tuple[int, ...]:
        if isinstance(self.keep, float) and self.keep == 1:
            return ()
        return self._boundaries(layers)

    def _boundaries(self, layers: int) -> tuple[int, ...]:
        if self.layers_of is None:
            behind = (round(layers * share) for share in (5 / 32, 15 / 32, 25 / 32))
            return tuple(dict.fromkeys(min(max(1, k), layers - 1) for k in behind))
        if self.layers_of[-1] + 1 >= layers:
            raise beyond_depth("layers_of", self.layers_of, layers, layers - 2)
        return tuple(layer + 1 for layer in self.layers_of)

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 4 * n * widths.keys

    def at_boundary(self, k: int, layers: int, state: BoundaryState) -> Tensor | Soft | None:
        if not any(state.known.visual):
            return None
        bounds = self._boundaries(layers)
        step = bounds.index(k)
        shares = [ratios_of_share(s, bounds, layers)[step] for s in rows_share(self.keep, state)]
        wanted = on_device(torch.tensor(shares).to(state.hidden.dtype), state.hidden.device).float()
        heads = self.module(state.hidden, layers=layers)
        head = heads[step]
        # Training drops nothing; tokens masked here must not count at deeper thresholds.
        alive = state.visual & state.notes.get("alive", state.visual)
        most = max(state.known.since) if state.labels is None else None
        own, cross = both_scores(
            state.signals[DecoderHeads()], alive, text_after_image(state), most
        )
        scores = self.sized(width=state.hidden.shape[-1], layers=layers).scores or "both"
        s_r = {"both": (own + cross) / 2, "self": own, "cross": cross}[scores]
        state.signals.record(s_r)
        s_sp = spatial_score(state.places()[0], self.rates, self.lambda_sample)
        share = (wanted * state.entered / alive.sum(1).clamp(min=1)).clamp(max=1)
        anchor = quantile(s_r, alive, 1 - share)
        theta_r, theta_s = head(statistics(own, cross, alive), share, anchor)
        if heads.training and state.labels is not None:
            t = self.temperature
            m = torch.maximum(
                (t * (s_r - theta_r)).sigmoid(), (t * (s_sp - theta_s)).sigmoid()
            ).masked_fill(~state.visual, 1.0)
            so_far = m * state.notes["soft"] if "soft" in state.notes else m
            state.notes |= {"soft": so_far, "alive": alive & (so_far > 0.5)}
            return Soft((m + 1e-6).log())
        stays = (s_r > theta_r) | (s_sp > theta_s)
        few = torch.full_like(state.entered, self.min_keep)
        stays |= top_mask(s_r, few, state.visual)
        stays |= (wanted == 1)[:, None]
        stays |= ~state.visual
        return None if bool(stays.all()) else stays


def text_after_image(state: BoundaryState) -> Tensor:
    """(B, N) bool: text after the first visual column; in training, before the first answer."""
    text = state.valid & ~state.visual & (state.visual.long().cumsum(1) > 0)
    if state.labels is not None:
        text = text & ((state.labels != -100).cumsum(1) == 0)
    return text


def both_scores(
    heads: Heads, visual: Tensor, text: Tensor, most: int | None = None
) -> tuple[Tensor, Tensor]:
    """s_self and s_cross, (B, N) each in [0, 1].

    most: upper limit of the text tokens of a row, where that is known.
    """
    b, shared, n, _ = heads.key.shape
    count = visual.sum(1).clamp(min=1)[:, None, None]
    # The mean of logits is the logit of the mean query: no map over visual pairs is needed.
    mean = (heads.query.float() * visual[:, None, :, None]).sum(2) / count
    logits = mean.unflatten(1, (shared, -1)) @ heads.key.float().mT * heads.scaling
    cross = paid(heads, *columns_of(text, most))
    return unit(logits.mean((1, 2)), visual), unit(cross, visual)


def unit(x: Tensor, mask: Tensor) -> Tensor:
    """Rows of x (B, N) in [0, 1] over the True entries of mask; 0.5 where all are equal."""
    low = x.masked_fill(~mask, float("inf")).amin(1, keepdim=True)
    high = x.masked_fill(~mask, float("-inf")).amax(1, keepdim=True)
    scaled = (x - low) / (high - low).clamp(min=1e-12)
    return torch.where(high > low, scaled.clamp(0, 1), 0.5)


def quantile(x: Tensor, mask: Tensor, share: Tensor) -> Tensor:
    """A value (B, 1) that `share` (B,) of the True entries of x (B, N) do not exceed.

    It lies midway to the next entry, so that rounding does not decide.
    """
    last = (mask.sum(1, keepdim=True) - 1).clamp(min=0)
    ranked = x.masked_fill(~mask, float("inf")).sort(1).values
    place = ((share[:, None] * (last + 1)).round().long() - 1).clamp(min=0)
    around = torch.cat([torch.minimum(place, last), torch.minimum(place + 1, last)], 1)
    return ranked.gather(1, around).mean(1, keepdim=True).nan_to_num(posinf=0)


def spatial_score(place: Tensor, rates: tuple[float, ...], slope: float) -> Tensor:
    """1 - slope R^2 of the coarsest sampling R that place (B, N, 3) lies on in its grid, else 0."""
    row, column = place[..., 1], place[..., 2]
    score = torch.zeros(row.shape, device=row.device)
    for rate in reversed(rates):
        step = round(1 / rate)
        on = (row % step == 0) & (column % step == 0) & (row >= 0)
        score = score.masked_fill(on, 1 - slope * rate * rate)
    return score


def statistics(own: Tensor, cross: Tensor, visual: Tensor) -> Tensor:
    """Mean, deviation, maximum and eight quantiles of both scores over visual columns, (B, 22)."""
    found = []
    for x in (own, cross):
        count = visual.sum(1, keepdim=True).clamp(min=1)
        mean = (x * visual).sum(1, keepdim=True) / count
        spread = ((x - mean).square() * visual).sum(1, keepdim=True) / count
        ranked = x.masked_fill(~visual, float("inf")).sort(1).values
        at = torch.arange(QUANTILES, device=x.device) + 0.5
        place = (at * count / QUANTILES).long().clamp(max=ranked.shape[1] - 1)
        places = torch.minimum(place, count - 1)
        quantiles = ranked.gather(1, places).nan_to_num(posinf=0)
        found += [mean, spread.sqrt(), (x * visual).amax(1, keepdim=True), quantiles]
    return torch.cat(found, 1)


class Thresholds(nn.Module):
    """Predicts two thresholds from the statistics of one input and the wanted ratio."""

    def __init__(self, hidden: int):
        super().__init__()
        self.encoder = nn.Linear(2 * (3 + QUANTILES) + 1, hidden)
        self.redundancy, self.spatial = nn.Linear(hidden, 1), nn.Linear(hidden, 1)
        for part, bias in ((self.redundancy, 0.0), (self.spatial, CLOSED)):
            nn.init.zeros_(part.weight)
            nn.init.constant_(part.bias, bias)

    def forward(self, stats: Tensor, share: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
        """theta_r, theta_s (B, 1) in [0, 1] from stats (B, 22), share (B,) and anchor (B, 1)."""
        features = torch.cat([stats, share.clamp(1e-3, 1 - 1e-3).logit()[:, None]], 1)
        z = self.encoder(features.to(self.encoder.weight.dtype)).tanh()
        moved = anchor.clamp(1e-6, 1 - 1e-6).logit() + self.redundancy(z).float()
        return moved.sigmoid(), self.spatial(z).float().sigmoid()
