"""VideoLLM-MoD: routers are initialised from attention, then learn from the answers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

import foveate
from foveate.benchmarks.loaded_model import LoadedModel
from foveate.method import Method
from foveate.methods.layers.videollm_mod import VideoLLMMoD
from foveate.parts import BoundaryState
from foveate.trained import lent
from foveate.training.attention_target import attention_target
from foveate.training.batches import Batch, draw
from foveate.training.boundary_hook import BoundaryHook
from foveate.training.recipe import Recipe, Run
from foveate.training.streaming import stream_loss

# Gate values at which a layer is nearly unchanged.
OPEN = {"raw": 1.0, "sigmoid": 4.0}


@dataclass(frozen=True, kw_only=True)
class VideoLLMMoDRecipe(Recipe):
    """The decoder stays frozen, unlike in the paper.

    Attributes:
        keep_ratio: of the method.
        gate: of the method, "raw" or "sigmoid".
        stream_weight: loss weight of labels at frame tokens, where a stream learns when to answer.
            Questions about images have none there.
        warm: batches for a least-squares initialisation of the routers; 0 for none. A frozen
            decoder needs gates near 1 from the start.
        spread: gate difference per standard deviation of the log attention from text.
    """

    slug = "videollm_mod"

    steps: int = 200
    pictures: int = 4
    questions: int = 4
    # Hidden states are not normalised: larger steps make raw gates unstable.
    rate: float = 2e-4
    keep_ratio: float = 0.2
    gate: str = "raw"
    stream_weight: float = 1.0
    warm: int = 16
    spread: float = 0.1

    def method(self, base: LoadedModel) -> VideoLLMMoD:
        return VideoLLMMoD(weights="random", keep_ratio=self.keep_ratio, gate=self.gate)

    def start(self, base: LoadedModel, method: Method, seed: int) -> nn.Module:
        module = super().start(base, method, seed)
        width = base.model.config.get_text_config().hidden_size
        kinds = (width, self.spread, OPEN[self.gate])
        fits = {int(name): Fit(*kinds) for name in module if self.warm}
        with torch.no_grad(), foveate.attach(base.model, BoundaryHook(hooks=fits)):
            for step in range(self.warm):
                batch = draw(base, step, seed, self.pictures, self.questions)
                base.model(**batch.prompts, use_cache=False)
        for i, fit in fits.items():
            module[str(i)].weight.data.copy_(fit.solved())
        return module

    def loss(self, run: Run, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        with lent(self.slug, run.module), foveate.attach(run.model, run.method):
            logits = run.model(**batch.inputs, use_cache=False).logits
        frames = batch.inputs["input_ids"] == run.model.config.image_token_id
        ahead = logits[:, :-1], batch.labels[:, 1:], frames[:, :-1]
        return stream_loss(*ahead, self.stream_weight), {}

    def rows(self, run: Run, trained: Method) -> dict[str, Method]:
        """Also other selections of as many tokens, and skipped layers at about that cost."""
        return {
            **super().rows(run, trained),
            "random": replace(trained, weights=None, selector="random"),
            "uniform": replace(trained, weights=None, selector="uniform"),
            "layer skip": replace(trained, weights=None, selector="skip"),
            "early exit": replace(trained, weights=None, selector="skip", placement="deep"),
        }


class Fit:
    """Least-squares fit of a router that predicts the attention to a token from its state."""

    def __init__(self, width: int, spread: float, centre: float):
        self.spread, self.centre = spread, centre
        self.square = torch.zeros(width, width, dtype=torch.double)
        self.wanted = torch.zeros(width, dtype=torch.double)

    def __call__(self, state: BoundaryState) -> None:
        x = state.hidden[state.visual].double().cpu()
        y = self.centre + self.spread * attended(state)[state.visual].double().cpu()
        self.square += x.mT @ x
        self.wanted += x.mT @ y

    def solved(self) -> Tensor:
        """Weights (1, D)."""
        ridge = 1e-4 * self.square.diagonal().mean() * torch.eye(len(self.square))
        return torch.linalg.solve(self.square + ridge, self.wanted)[None]


def attended(state: BoundaryState) -> Tensor:
    """Logarithm of the attention (B, N) that visual columns get from text, standardised per row."""
    return attention_target(state.heads(), state.visual, "text", "standard")
