"""One method on one model: its parts by stage, checked once when it is attached."""

from __future__ import annotations

import inspect
from functools import cached_property

from foveate.engine.anatomy import Anatomy
from foveate.engine.cache.cache_parts import Caches
from foveate.engine.decoder.boundaries import Boundaries
from foveate.engine.decoder.deepstack import Planes
from foveate.engine.decoder.rules import Rules
from foveate.engine.reporting import Reporter
from foveate.engine.tower.encode import Encoder
from foveate.errors import FoveateError
from foveate.method import Method, in_road_order
from foveate.parts import CachesPart, EncodersPart, FramesPart, Part, RulePart, TokensPart

STAGES = ("frames", "encoders", "tokens", "layers", "caches")


class Setup:
    """The parts of a method with what runs them on a model; all threads share it.

    Attributes:
        anatomy: the model.
        method: the method.
        encoder: runs the parts before and inside the vision encoder.
        tokens: the parts before the LLM.
        packed: whether position ids are renumbered where tokens are dropped before the LLM.
        boundaries: runs the parts between decoder layers.
        rules: runs the parts that change what a decoder layer computes.
        caches: runs the part that changes what the KV cache holds.
        planes: keeps DeepStack features in step with dropped tokens.
        reporter: makes reports and totals.
        record_scores: whether scores of tokens are kept for reports; may change between calls.
    """

    def __init__(self, anatomy: Anatomy, method: Method, record_scores: bool = False):
        self.anatomy = anatomy
        self.method = method
        method.check(width=anatomy.text.config.hidden_size, layers=len(anatomy.layers))
        parts = in_road_order(method.parts())
        _refuse_foreign(parts)
        self.tokens = [p for p in parts if isinstance(p, TokensPart)]
        before_llm = [p for p in parts if isinstance(p, FramesPart | EncodersPart | TokensPart)]
        self.packed = any(anatomy.packs(p.positions) for p in before_llm)
        self.boundaries = Boundaries(anatomy, parts)
        self.caches = Caches(anatomy, [p for p in parts if isinstance(p, CachesPart)])
        rules = [p for p in parts if isinstance(p, RulePart)]
        self.rules = Rules(anatomy, rules, self.boundaries)
        self.encoder = Encoder(anatomy, parts)
        self.planes = Planes(anatomy, self.boundaries)
        self.reporter = Reporter(anatomy, method)
        self.record_scores = record_scores

    @property
    def inside_llm(self) -> bool:
        """Whether some part acts inside the LLM or on its KV cache."""
        return bool(self.boundaries or self.rules or self.caches)

    @cached_property
    def counts_logits(self) -> bool:
        """Whether the model is told for how many columns at the end logits are wanted."""
        return "logits_to_keep" in inspect.signature(self.anatomy.outer.forward).parameters


def _refuse_foreign(parts: list[Part]) -> None:
    for part in parts:
        if part.stage not in STAGES:
            raise FoveateError(
                f"{type(part).__name__} has stage={part.stage!r}, which attach does not support; "
                f"use one of {', '.join(STAGES)}."
            )
