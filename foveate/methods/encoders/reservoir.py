"""The state of TCA on a stream: samples per class, the anchors they give, the logits they correct.

A sample is its image feature, the entropy of its prediction and the [CLS] state after every layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from foveate.errors import InvalidParameter
from foveate.ops.nearest import nearest
from foveate.parts import BlockState, EncodersPart, Widths


class Adapter(EncodersPart):
    """State of one stream: the reservoir of samples, and the anchors that TCA condenses with.

    rows: the reservoir, ascending by class and then by entropy: "label" (n,), "feature" (n, E),
    "entropy" (n,), "states" (n, L, C), "number" (n,), the samples seen before each.
    anchors: (K, L, C), or None before the first.
    method: the `TCA` that condenses.
    """

    proportional = False
    even = True

    def __init__(self, method: Any, generator: torch.Generator | None = None):
        self.method = method
        self.draw = None
        if generator is not None:
            self.draw = lambda n, b: torch.randint(
                n, (b,), generator=generator, device=generator.device
            )
        self.reset()

    def reset(self) -> None:
        """Clear the state."""
        self.seen = 0
        self.rows: dict[str, Tensor] = {}
        self.anchors: Tensor | None = None

    def merge(self, block: int, blocks: int, state: BlockState):
        return self.method.merge(block, blocks, state, self.draw)

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return self.method.cost(n, keep, widths)

    def vectors(self, block: int, blocks: int) -> int:
        return int(self.anchors is not None and block > 0 and block in self.method.layers(blocks))

    def beside(self, block: int, blocks: int, state: Tensor) -> Tensor | None:
        """For each of `state` (B, C), the most similar anchor (B, 1, C) of the previous layer."""
        if self.anchors is None or not self.vectors(block, blocks):
            return None
        bank = self.anchors[:, block - 1].to(state)
        return bank[nearest(state[:, None], bank.expand(len(state), -1, -1))]

    def update(self, logits: Tensor, feature: Tensor, states: Tensor) -> Tensor:
        """Add a sample; return the correction (K,) of its logits (K,), which includes the sample.

        feature (E,): of norm 1. states (L, C): the [CLS] states after every layer.
        """
        odds = logits.float().log_softmax(-1)
        return self.insert(
            int(logits.argmax()), -(odds.exp() * odds).sum(), feature, states, len(logits)
        )

    def insert(
        self, label: int, entropy: Tensor, feature: Tensor, states: Tensor, classes: int
    ) -> Tensor:
        """`update` for a sample whose predicted class and entropy are known."""
        if not self.method.reservoir_size:
            return torch.zeros(classes, device=states.device)
        states = states.float()
        new = {
            "label": torch.tensor([label], device=states.device),
            "feature": feature[None].float(),
            "entropy": entropy.reshape(1).float(),
            "states": states[None],
            "number": torch.tensor([self.seen], device=states.device),
        }
        self.seen += 1
        old = self.rows
        self.rows = {k: torch.cat([old[k].to(v), v]) if old else v for k, v in new.items()}
        self._forget(label)
        self._order()
        self._refresh()
        return self.correction(states, classes)

    def _forget(self, label: int) -> None:
        """Drop, of a class that overflows, the sample with the highest entropy plus similarity."""
        own = (self.rows["label"] == label).nonzero()[:, 0]
        if len(own) <= self.method.reservoir_size:
            return
        vector = normalize(self.rows["states"][own].mean(1), dim=-1)
        alike = vector @ vector.T
        alike = (alike.sum(1) - alike.diagonal()) / (len(own) - 1)
        worst = own[(self.rows["entropy"][own] + alike).argmax()]
        stays = torch.arange(len(self.rows["label"]), device=worst.device) != worst
        self.rows = {k: v[stays] for k, v in self.rows.items()}

    def _order(self) -> None:
        order = self.rows["entropy"].argsort(stable=True)
        order = order[self.rows["label"][order].argsort(stable=True)]
        self.rows = {k: v[order] for k, v in self.rows.items()}

    def _refresh(self) -> None:
        names, of, count = self.rows["label"].unique(return_inverse=True, return_counts=True)
        ready = count > 1
        if self.method.gate == "all" and not bool(ready.all()) or not bool(ready.any()):
            return
        total = self.rows["states"].new_zeros(len(names), *self.rows["states"].shape[1:])
        mean = total.index_add_(0, of, self.rows["states"]) / count[:, None, None]
        self.anchors = mean[ready]

    def correction(self, states: Tensor, classes: int) -> Tensor:
        """lam sum_j exp(-beta (1 - affinity_j)) at the class of each sample j, (classes,)."""
        m, layers = self.method, states.shape[0]
        # In log space: a small scale gives all weight to the last layer.
        weight = (torch.linspace(0, 1, layers, device=states.device) / m.scale).softmax(0)
        cosine = (normalize(states, dim=-1) * normalize(self.rows["states"], dim=-1)).sum(-1)
        pull = m.lam * torch.exp(-m.beta * (1 - cosine @ weight))
        return pull.new_zeros(classes).index_add_(0, self.rows["label"], pull)

    def state_dict(self) -> dict[str, Tensor]:
        """The state as tensors on the CPU, ready for `safetensors`."""
        held = {k: v.cpu().contiguous() for k, v in self.rows.items()}
        if self.anchors is not None:
            held["anchors"] = self.anchors.cpu().contiguous()
        return held | {"seen": torch.tensor(self.seen)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore a state from `state_dict`."""
        rows = {k: v for k, v in state.items() if k not in ("anchors", "seen")}
        if "seen" not in state or rows and rows.keys() != {
            "label", "feature", "entropy", "states", "number"
        }:  # fmt: skip
            raise InvalidParameter(
                f"A state with the keys {sorted(state)} is not the state of a stream; pass the "
                "result of state_dict()."
            )
        self.seen, self.rows = int(state["seen"]), dict(rows)
        self.anchors = state.get("anchors")
