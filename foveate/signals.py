"""What a part may ask to see. Signals are asked for, never taken: `needs = (VisionKeys(), ...)`.

Every per-token signal arrives aligned with the tokens of the item it belongs to, pooled the way
the family's projector pools features; slots of special tokens hold zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import overload

from torch import Tensor

from foveate.ops.attention import Heads


@dataclass(frozen=True)
class VisionAttention:
    """Attention probabilities inside the vision tower, as (B, H, N), no full map ever made.

    rows="cls": what the class token pays each patch (class column not removed by renormalising).
    rows="received": the mean over all query rows of what each patch receives.
    rows="auto": "cls" where the tower has a trained class token, "received" elsewhere.
    rows="mutual": (B, 2, H, N), the sums of what each patch gets from patches and gives to patches,
    class row and class column left out.
    layer: 0-based block, negative from the end of the attentions; None is the block whose output
    the projector reads (block -2 in LLaVA-1.5). A pair (start, stop) is a Python slice of blocks,
    as (B, L, H, N).
    logits: the scaled products before the softmax; "received" is their mean over rows then.
    Parts between decoder layers see it over all columns, 0 for text.
    """

    rows: str = "auto"
    layer: int | tuple[int | None, int | None] | None = None
    logits: bool = False


@dataclass(frozen=True)
class VisionKeys:
    """Key projections of one vision block before any scaling or rotation, as (B, H, N, d)."""

    layer: int | None = None


@dataclass(frozen=True)
class VisionStates:
    """Hidden states that leave one vision block, as (B, N, C)."""

    layer: int | None = None


@dataclass(frozen=True)
class ProjectorInput:
    """Features before the projector, as (B, N, C); `signals.project` takes such rows to LLM space.

    Where a family's projector merges or pools patches these are the projected features themselves
    and `signals.project` is the identity: such towers can only be reduced behind the projector.
    """


@dataclass(frozen=True)
class ClassState:
    """The class token of each view in the space of `ProjectorInput`, (B, V, C), or None."""


@dataclass(frozen=True)
class TextEmbeddings:
    """Embeddings of the text tokens of the sample an item belongs to, as (B, T, D).

    paired: only those between the item and the next one behind which text stands; all where none.
    """

    paired: bool = False


@dataclass(frozen=True)
class DecoderAttention:
    """Attention probabilities of the last prompt row in one finished decoder layer, as (B, H, N).

    layer: 0-based decoder layer, below the boundary that reads it.
    """

    layer: int


@dataclass(frozen=True)
class DecoderKeys:
    """Keys of every column in one finished decoder layer, (B, Hkv, N, d), rotated as cached.

    Where the model counts padding, rows have the keys that they would have without it.
    layer: 0-based decoder layer, below the boundary that reads it.
    """

    layer: int


@dataclass(frozen=True)
class DecoderHeads:
    """`Heads` of the decoder layer in front of each boundary: queries and keys of all columns."""


@dataclass(frozen=True)
class DecoderTransition:
    """What attention and MLP of one finished decoder layer did to every column, (B, 2, N, 2).

    Of each of the two: the length of what it returned over that of what it was given, and the
    cosine between them. What a layer does to either's output before adding it is left out.
    layer: 0-based decoder layer, below the boundary that reads it.
    """

    layer: int


Need = (
    VisionAttention
    | VisionKeys
    | VisionStates
    | ProjectorInput
    | ClassState
    | TextEmbeddings
    | DecoderAttention
    | DecoderKeys
    | DecoderHeads
    | DecoderTransition
)


class Signals:
    """The signals of one group of B equally laid out items: `signals[need]`.

    project: takes rows (..., C) of `ProjectorInput` to LLM space (..., D).
    """

    def __init__(
        self,
        values: Mapping[Need, Tensor | Heads | None],
        project: Callable[[Tensor], Tensor] = lambda x: x,
    ):
        self._values = values
        self.project = project

    @overload
    def __getitem__(self, need: ClassState) -> Tensor | None: ...
    @overload
    def __getitem__(self, need: DecoderHeads) -> Heads: ...
    @overload
    def __getitem__(self, need: Need) -> Tensor: ...
    def __getitem__(self, need: Need) -> Tensor | Heads | None:
        return self._values[need]
