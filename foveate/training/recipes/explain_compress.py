"""Explainability-guided compression: the network learns to predict gradient-based relevance."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

import foveate
from foveate.benchmarks import task_items
from foveate.benchmarks.loaded_model import LoadedModel
from foveate.budget import Keep
from foveate.method import Method
from foveate.methods.layers.base import ScoredLayers
from foveate.methods.layers.explain_compress import ExplainCompress, instruction_attention
from foveate.parts import BoundaryState
from foveate.training.batches import IGNORED, Batch
from foveate.training.boundary_hook import BoundaryHook
from foveate.training.recipe import Recipe, Run
from foveate.training.relevance import overlap, relevance, upper_half

SHARES = (0.5, 0.25)


@dataclass(frozen=True, kw_only=True)
class ExplainCompressRecipe(Recipe):
    """Every relevance map is used once; the paper uses 10,000 maps for 100 epochs."""

    slug = "explain_compress"

    steps: int = 240
    rate: float = 2e-3

    def method(self, base: LoadedModel) -> Method:
        heads = base.model.config.get_text_config().num_attention_heads
        return ExplainCompress(weights="random", heads=heads)

    def loss(self, run: Run, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        seen: dict[str, Tensor] = {}

        def look(state: BoundaryState) -> None:
            seen["attention"] = instruction_attention(state)

        answers = batch.labels.masked_fill(batch.labels == _end(run.base), IGNORED)
        # The labels mark the answer tokens, which are not part of the question.
        inputs = {**batch.inputs, "labels": batch.labels}
        with foveate.attach(run.model, BoundaryHook(hooks={0: look})):
            truth, right = relevance(run.model, inputs, answers)
        visual = batch.inputs["input_ids"] == run.model.config.image_token_id
        heads = seen["attention"].shape[1]
        attention = seen["attention"].mT[visual].view(len(truth), -1, heads).mT[right]
        truth = truth[visual].view(len(truth), -1)[right]
        logits = run.module.logits(attention)
        if not len(truth):
            return logits.sum(), {}
        loss = F.kl_div(logits.log_softmax(1), upper_half(truth), reduction="batchmean")
        figures = {
            "correct_ratio": right.float().mean(),
            "overlap": overlap(logits, truth).mean(),
            "overlap_attention": overlap(attention.mean(1), truth).mean(),
        }
        return loss, {name: value.item() for name, value in figures.items()}

    def rows(self, run: Run, trained: Method) -> dict[str, Method]:
        rows: dict[str, Method] = {}
        for keep in SHARES:
            at = f"at {keep:.0%}"
            own = {k: v for k, v in trained.to_dict().items() if k != "method"}
            rows[f"trained {at}"] = ExplainCompress(**{**own, "keep": keep})
            rows[f"oracle relevance {at}"] = Ranked(keep=keep, oracle=Oracle(run.base))
            rows[f"attention {at}"] = Ranked(keep=keep)
            rows[f"random {at}"] = foveate.create("random", keep=keep)
        return rows


class Oracle:
    """Relevance of the tokens of a batch for the full model's own answers."""

    def __init__(self, base: LoadedModel):
        self.base = base
        # A copy: the attached method must not change the labels.
        self.model = copy.deepcopy(base.model)
        self.scores: Tensor | None = None

    @torch.no_grad()
    def read(self, batch: task_items.Batch) -> None:
        """Answer the batch and compute the relevance of its tokens."""
        prompt = batch.inputs["input_ids"].shape[1]
        ids = self.model.generate(**batch.inputs, max_new_tokens=8, do_sample=False)
        said = ids[:, prompt:] != _end(self.base)
        # Ignore everything after the first end of text.
        said = said & (said.cumprod(1) == 1)
        # An empty answer is explained by its end of text.
        said[:, 0] = True
        labels = ids.clone()
        labels[:, :prompt] = IGNORED
        labels[:, prompt:] = labels[:, prompt:].masked_fill(~said, IGNORED)
        mask = torch.cat([batch.inputs["attention_mask"], said.long()], 1)
        inputs = {**batch.inputs, "input_ids": ids, "attention_mask": mask}
        self.scores = relevance(self.model, inputs, labels)[0][:, :prompt]


@dataclass(frozen=True, kw_only=True, repr=False)
class Ranked(Method, ScoredLayers):
    """Keeps the top tokens by oracle relevance, or by attention without an oracle.

    Attributes:
        keep: retention ratio or number of tokens.
        oracle: gives the relevance; None ranks by attention.
    """

    slug = "ranked"
    prompt_agnostic = False
    per_item = True

    keep: Keep = 0.5
    oracle: Oracle | None = field(default=None, compare=False)

    def before(self, batch: task_items.Batch) -> None:
        """Called before each batch of questions."""
        if self.oracle is not None:
            self.oracle.read(batch)

    def boundaries(self, layers: int) -> tuple[int, ...]:
        return (0,)

    def scores(self, k: int, layers: int, state: BoundaryState) -> Tensor:
        true = None if self.oracle is None else self.oracle.scores
        return instruction_attention(state).mean(1) if true is None else true


def _end(base: LoadedModel) -> int:
    return base.processor.tokenizer.eos_token_id
