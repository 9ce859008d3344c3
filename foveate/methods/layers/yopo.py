"""Cut the computation of visual tokens in the LLM: local attention, heads, neurons, late layers.

Zhang et al., "Treat Visual Tokens as Text? But Your MLLM Only Needs Fewer Efforts to See", 2024,
arXiv 2410.06169.

Rule: four cuts, all independent of the input.

- attention: a visual token attends to the patches of its own image that are at most (w - 1) / 2
  rows and columns away, later ones included; w is `attncut_w`
- heads: heads that hardly attend to images do not read visual keys, and their output is zero for
  visual tokens (`foveate.methods.layers.yopo_heads` finds them)
- neurons: visual tokens use the first 1 / mlpcut_ratio of the neurons of every MLP
- layers: no layer from c = `layercut_num` on computes visual tokens; with `keep`, c is keep times
  the number of layers

Needs: the position of every patch.

Cost: none.

Differences: with several crops or frames, the window applies within each of them; attention between
them does not change. Neurons and window are those of the released script for LLaVA-1.5-13B, and
`keep` is its `layercut_num` of 20 in an LLM of 32 layers. That script masks heads too, which needs
a `headmask`.

Notes: `renormalize=False` is the released LLaVA code. It leaves visual keys in the softmax of all
layers and zeroes their values. Tokens whose keys are still read must be computed, so this saves
only neurons and pairs of attention. `renormalize=True`, the default, is how the released Qwen2-VL
code cuts layers. The neurons were cut for a model that is tuned with the cut; with other models use
`mlpcut_ratio=1`.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.YOPO(keep=0.6, mlpcut_ratio=1.0)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveate.attention_call import Attend, AttentionCall, Columns, Feed, MLPCall
from foveate.budget import MEAN_OVER_LAYERS, Keep
from foveate.errors import BudgetError, InvalidParameter
from foveate.method import Method, register
from foveate.parts import BoundaryState, LayersPart, RulePart


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class YOPO(Method, RulePart, LayersPart):
    """YOPO; the docstring of its module states its four cuts.

    Attributes:
        keep: mean over all LLM layers, the share of the layers that compute visual tokens; a float
            in (0, 1]. 1.0 cuts nothing, neither heads nor neurons.
        attncut_w: side of the attention window in patches, an odd number; None for no window.
        layercut_num: first layer that computes no visual tokens, instead of `keep`, from 1 on; the
            number of layers cuts none.
        headmask: one tuple per layer with 1 or True for each head that is kept; None keeps all
            heads.
        mlpcut_ratio: all neurons divided by those that visual tokens use, at least 1.0; use 1.0
            with models that were not tuned with the cut.
        renormalize: from layer `layercut_num` on, drop visual tokens (True) or zero their values
            (False).
        causal_neighbors: no patch attends to a later one.
    """

    slug = "yopo"
    paper = "arXiv 2410.06169"
    keep_means = MEAN_OVER_LAYERS

    keep: Keep = 0.625
    positions: str = "original"
    attncut_w: int | None = 5
    layercut_num: int | None = None
    headmask: tuple[tuple[bool | int, ...], ...] | None = None
    mlpcut_ratio: float = 2.0
    renormalize: bool = True
    causal_neighbors: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.keep, int):
            raise BudgetError(
                f"keep={self.keep} is a count of tokens, but YOPO's keep is a share of the layers; "
                "use a float such as keep=0.5."
            )
        if self.attncut_w is not None and (self.attncut_w < 1 or self.attncut_w % 2 == 0):
            raise InvalidParameter(
                f"attncut_w={self.attncut_w} is not valid: use an odd number, or None for no "
                "window."
            )
        if self.layercut_num is not None and self.layercut_num < 1:
            raise InvalidParameter(f"layercut_num={self.layercut_num} is not valid: use 1 or more.")
        if not self.mlpcut_ratio >= 1:
            raise InvalidParameter(
                f"mlpcut_ratio={self.mlpcut_ratio} is not valid: use 1.0 for all neurons, or more."
            )

    @property
    def prompt_only(self) -> bool:  # type: ignore[override]
        """Whether new tokens attend without the rule: all heads, no visual tokens after the cut."""
        return self.renormalize and self.headmask is None

    def cut(self, layers: int) -> int:
        """First layer that computes no visual tokens."""
        asked = self.layercut_num or max(1, round(self.keep * layers))
        return layers if self.keep == 1 else min(asked, layers)

    def layers(self, n: int) -> tuple[int, ...]:
        if self.keep == 1:
            return ()
        if self.headmask is not None and len(self.headmask) != n:
            raise InvalidParameter(
                f"headmask has {len(self.headmask)} rows, but the model has {n} decoder layers; "
                "give one for each."
            )
        return tuple(range(self.cut(n) if self.renormalize else n))

    def boundaries(self, layers: int) -> tuple[int, ...]:
        cut = self.cut(layers)
        return (cut,) if self.renormalize and cut < layers else ()

    def at_boundary(self, k: int, layers: int, state: BoundaryState) -> Tensor:
        return ~state.visual

    def attend(self, call: AttentionCall, proceed: Attend) -> Tensor:
        # On the CPU: the mask is known here, and reading it from a GPU would sync at every layer.
        stays = torch.ones(call.query.shape[1], dtype=torch.bool)
        if self.headmask is not None:
            stays = torch.tensor(self.headmask[call.layer]) > 0
        sees = stays & (self.renormalize or call.layer < self.cut(call.layers))
        width, bare = call.value.shape[-1], call.pair_cost()
        # Zeroing values equals multiplying probabilities by the mask, and works with any kernel.
        call = replace(call, value=_values(call, sees))
        out, spared = self._windowed(call, proceed)
        call.account(bare * call.bare_pairs() - call.pair_cost() * (call.bare_pairs() - spared))
        if out.shape[-1] > width:
            own = sees.to(out.device)[:, None]
            out = torch.where(own, out[..., :width], out[..., width:])
        if call.prefill and self.headmask is not None:
            silent = ~stays.to(out.device)[:, None]
            out = out.masked_fill(call.queries.visual[:, :, None, None] & silent, 0)
        return out

    def _windowed(self, call: AttentionCall, proceed: Attend) -> tuple[Tensor, Tensor]:
        """Output with the window, and the (query, key) pairs (B,) that it saves."""
        window = self.attncut_w
        if window is None or not call.prefill or not any(call.queries.counts[1]):
            return proceed(call), torch.zeros_like(call.bare_pairs())
        return call.in_blocks(proceed, lambda part: self.visible(part, window))

    def visible(self, call: AttentionCall, window: int) -> Tensor:
        """What each query may attend to with the window, (B, 1 or H, q, K) bool."""
        seen, (rows, keys) = call.seen(), (call.queries, call.keys)
        near = neighbors(rows.place, keys.place, window)[:, None]
        same = _patch(rows)[:, :, None] & _patch(keys)[:, None, :]
        same &= rows.item[:, :, None] == keys.item[:, None, :]
        same &= rows.frame[:, :, None] == keys.frame[:, None, :]
        return torch.where(same[:, None], near & seen if self.causal_neighbors else near, seen)

    def feed(self, call: MLPCall, proceed: Feed) -> Tensor:
        neurons = int(call.width / self.mlpcut_ratio)
        if not call.prefill or neurons == call.width or not any(call.columns.counts[1]):
            return proceed(call)
        visual, others = call.columns.parted
        x = call.x.flatten(0, 1)
        made = torch.cat([call.apply(x[visual], neurons), call.apply(x[others])])
        back = torch.cat([visual, others]).argsort()
        spared = call.cost() - call.cost(neurons)
        call.account((call.columns.visual & call.columns.valid).sum(1) * spared)
        return made[back].view_as(call.x)


def neighbors(rows: Tensor, keys: Tensor, window: int) -> Tensor:
    """Whether positions (B, K, 3) are in the window around positions (B, R, 3), (B, R, K) bool."""
    gap = (rows[:, :, None, 1:] - keys[:, None, :, 1:]).abs()
    return gap.amax(-1) <= (window - 1) // 2


def _values(call: AttentionCall, sees: Tensor) -> Tensor:
    """Values whose visual rows are zero for heads outside `sees` (H,).

    Where heads that share a value differ, they are twice as wide: with and without visual rows.
    """
    groups = sees.view(call.value.shape[1], -1)
    if bool(sees.all()):
        return call.value
    text = call.value.masked_fill(call.keys.visual[:, None, :, None], 0)
    if bool((groups.all(1) == groups.any(1)).all()):
        return torch.where(groups[:, :1, None].to(text.device), call.value, text)
    return torch.cat([call.value, text], -1)


def _patch(columns: Columns) -> Tensor:
    return columns.visual & (columns.place[..., 1] >= 0)
