"""Drop all visual tokens at an LLM layer that a learned gate chooses per sample.

Wu et al., "Accelerating Multimodal Large Language Models via Dynamic Visual-Token Exit and the
Empirical Findings", NeurIPS 2025, arXiv 2411.19628.

Rule: before layer k a gate reads the hidden states x = [mean of the text after the image, last text
token] and gives

    (stay, exit) = W2 GELU(W1 x)

with learned matrices W1 and W2 of that layer. Where exit > stay, all visual tokens of that sample
are dropped from layer k on; position ids do not change. The decision is made once, during prefill,
separately for each sample. `foveate train --method dyvte` trains the gates. The label is exit where
the answer without visual tokens is the same word for word and its loss is below 1.03 times the loss
with them.

Needs: the hidden states of the text. No attention.

Cost: one gate per layer.

Differences: every sample of a batch has its own decision; the official code reads the first sample
only. There is no gate after the last layer, where nothing is left to save.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.DyVTE()):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foveate.budget import MEAN_OVER_LAYERS, Keep
from foveate.errors import BudgetError, InvalidParameter
from foveate.method import register
from foveate.methods.layers.base import rows_share
from foveate.ops.transfer import on_device
from foveate.parts import BoundaryState, LayersPart, Widths
from foveate.trained import TrainedMethod


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class DyVTE(TrainedMethod, LayersPart):
    """DyVTE; the docstring of its module states the rule.

    Attributes:
        keep: mean over all LLM layers, at most, for each sample; an int is a count per image or
            video, a float in (0, 1] a retention ratio. The default leaves the decision to the
            gates.
        exit_bias: added to exit - stay; above 0 visual tokens are dropped earlier.
        hidden: width of the gates where they are untrained, at least 1; loaded weights bring their
            own.
    """

    slug = "dyvte"
    paper = "arXiv 2411.19628"
    prompt_agnostic = False
    keep_means = MEAN_OVER_LAYERS
    shapes = ("hidden",)

    keep: Keep = 0.999
    positions: str = "original"
    exit_bias: float = 0.0
    hidden: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hidden >= 1 or not abs(self.exit_bias) < float("inf"):
            raise InvalidParameter(
                f"hidden={self.hidden}, exit_bias={self.exit_bias} are not valid: use a width of "
                "at least 1 and a finite bias."
            )

    def build(self, width: int, layers: int) -> nn.Module:
        return Gates(width, layers, self.hidden)

    def boundaries(self, layers: int) -> tuple[int, ...]:
        if isinstance(self.keep, float):
            if self.keep == 1:
                return ()
            return tuple(range(1, min(latest(self.keep, layers), layers - 1) + 1))
        return tuple(range(1, layers))

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        hidden = self.sized(width=widths.model).hidden
        return 4 * (widths.model + 1) * hidden + n * widths.model

    def at_boundary(self, k: int, layers: int, state: BoundaryState) -> Tensor | None:
        if not any(state.known.visual):
            return None
        shares = rows_share(self.keep, state)
        x = text_features(state.hidden, state.visual, state.valid, state.last)
        stay, leave = self.module(state.hidden, layers=layers)(k - 1, x).float().unbind(1)
        due = [[share < 1, latest(share, layers) <= k] for share in shares]
        may, must = on_device(due, x.device).unbind(1)
        exits = may & ((leave - stay + self.exit_bias > 0) | must)
        return ~(state.visual & exits[:, None]) if bool(exits.any()) else None


class Gates(nn.Module):
    """One gate after each of the layers 0 to L - 2; no biases, Xavier initialisation."""

    def __init__(self, width: int, layers: int, hidden: int):
        super().__init__()
        self.gates = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * width, hidden, bias=False),
                nn.GELU(),
                nn.Linear(hidden, 2, bias=False),
            )
            for _ in range(layers - 1)
        )
        for weight in self.parameters():
            nn.init.xavier_uniform_(weight)

    def forward(self, layer: int, x: Tensor) -> Tensor:
        """Logits (B, 2) of stay and exit after `layer`, from features (B, 2 D)."""
        return self.gates[layer](x)


def text_features(hidden: Tensor, visual: Tensor, valid: Tensor, last: Tensor) -> Tensor:
    """[mean of the text between image and last token, last token] (B, 2 D) of hidden (B, N, D).

    Where there is no text between, the last token replaces the mean.
    """
    columns = torch.arange(hidden.shape[1], device=hidden.device)
    behind = visual.flip(1).cumsum(1).flip(1) == 0
    is_text = valid & behind & (columns < last[:, None])
    end = hidden[torch.arange(len(hidden), device=hidden.device), last]
    total = (hidden.float() * is_text[..., None]).sum(1)
    count = is_text.sum(1, keepdim=True)
    mean = torch.where(count > 0, total / count.clamp(min=1), end.float())
    return torch.cat([mean.to(hidden.dtype), end], 1)


def latest(share: float, layers: int) -> int:
    """Layer before which tokens must be dropped for a mean ratio of `share`; `layers` for never."""
    if share > (layers - 1) / layers:
        return layers
    if (k := int(share * layers + 1e-9)) == 0:
        raise BudgetError(
            f"A mean retention ratio of {share:.4g} over the layers is out of reach: layer 0 keeps "
            f"all tokens, which is {1 / layers:.4g} already; raise keep, or add a method that "
            "prunes before the LLM."
        )
    return k


def exit_labels(
    full: Tensor, out: Tensor, labels: Tensor, agreement: float, ratio: float
) -> Tensor:
    """(B,) 1 where exiting changed nothing: full, out (B, T, V) logits of labels (B, T), -100 none.

    Share of equal argmax tokens above `agreement`, and loss below `ratio` times the full one.
    """
    supervised = labels != -100
    count = supervised.sum(1)
    losses = [
        nn.functional.cross_entropy(x.float().mT, labels, reduction="none").sum(1) / count
        for x in (full, out)
    ]
    same = ((full.argmax(-1) == out.argmax(-1)) & supervised).sum(1) / count
    return ((same > agreement) & (losses[1] < ratio * losses[0])).long()
