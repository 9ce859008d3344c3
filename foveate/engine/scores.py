"""The scores by which methods rank tokens. They are recorded where the caller asks for them."""

from __future__ import annotations

from torch import Tensor

from foveate.engine.prompt.prompt import ColumnScores, Stage
from foveate.parts import Part
from foveate.report import Scores
from foveate.tokens import VisualTokens

NONE = float("nan")


def slug_of(part: Part) -> str:
    """Slug of the method that a part belongs to: the part itself, or its attribute `method`."""
    return getattr(getattr(part, "method", part), "slug", type(part).__name__)


def token_scores(
    part: Part, tokens: VisualTokens, scores: Tensor, ranked: Tensor | None
) -> list[Scores]:
    """From scores (B, N) of tokens before the LLM to those of the slots of each of the B items."""
    ranked = tokens.patch if ranked is None else ranked & tokens.patch
    values = scores.float().masked_fill(~ranked, NONE)
    slots = values_at(values, tokens.assign)
    return [Scores(part.stage, None, slug_of(part), own) for own in slots]


def column_scores(
    found: list[ColumnScores],
    part: Part,
    layer: int,
    columns: Stage,
    scores: Tensor,
    ranked: Tensor | None,
) -> None:
    """Add the scores (B, N) of the columns of a stage to `found`."""
    visual = columns.item >= 0
    ranked = visual if ranked is None else ranked & visual
    values = scores.float().masked_fill(~ranked, NONE)
    found.append(ColumnScores(part.stage, layer, slug_of(part), columns, values))


def values_at(values: Tensor, index: Tensor) -> Tensor:
    """Values (..., N) at index (..., S), NaN where it is -1."""
    return values.gather(-1, index.clamp(min=0)).masked_fill(index < 0, NONE)
