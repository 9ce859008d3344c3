"""Signals: model internals that a part may read, declared as `needs = (VisionKeys(), ...)`.

The engine records the declared signals and nothing else. A signal with one value per token is
aligned with the tokens of its item: values per patch are pooled in the same way as the family's
projector pools features. Special tokens have zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import overload

from torch import Tensor

from foveate.ops.attention import Heads


@dataclass(frozen=True)
class VisionAttention:
    """Attention probabilities inside the vision encoder, (B, H, N); no full map is computed.

    Parts between decoder layers read it for all columns, with 0 for text.

    Attributes:
        rows: Which attention rows. "cls": the attention of the class token to each patch; the class
            column counts in the softmax. "received": the mean attention that each patch receives.
            "auto": "cls" where the encoder has a trained class token, otherwise "received".
            "mutual": (B, 2, H, N), for each patch the sum of the attention it receives from patches
            and of the attention it pays to patches, without the class row and class column.
        layer: 0-based block; negative counts from the last block with attention. None: the block
            whose output the projector reads (block -2 in LLaVA-1.5). A pair (start, stop) is a
            Python slice of blocks and gives (B, L, H, N).
        logits: Scaled products before the softmax instead of probabilities. With "received" their
            mean over rows.
    """

    rows: str = "auto"
    layer: int | tuple[int | None, int | None] | None = None
    logits: bool = False


@dataclass(frozen=True)
class VisionKeys:
    """Keys of one block of the vision encoder before scaling and rotation, (B, H, N, d).

    Attributes:
        layer: 0-based block, None for the block whose output the projector reads.
    """

    layer: int | None = None


@dataclass(frozen=True)
class VisionStates:
    """Hidden states after one block of the vision encoder, (B, N, C).

    Attributes:
        layer: 0-based block, None for the block whose output the projector reads.
    """

    layer: int | None = None


@dataclass(frozen=True)
class ProjectorInput:
    """Features before the projector, (B, N, C); `signals.project` maps them to the LLM's width.

    Some projectors merge or pool patches. There the signal holds the projected features and
    `signals.project` is the identity, because tokens can only be reduced after such a projector.
    """


@dataclass(frozen=True)
class ClassState:
    """Class token of each view before the projector, (B, V, C), or None where there is none."""


@dataclass(frozen=True)
class TextEmbeddings:
    """Embeddings of the text tokens of the row that an item belongs to, (B, T, D).

    Attributes:
        paired: Only the text between the item and the next item that is followed by text. All text
            of the row where there is none.
    """

    paired: bool = False


@dataclass(frozen=True)
class DecoderAttention:
    """Attention probabilities of the last prompt token in one decoder layer, (B, H, N).

    Attributes:
        layer: 0-based decoder layer, less than the boundary that reads it.
    """

    layer: int


@dataclass(frozen=True)
class DecoderKeys:
    """Keys of all columns in one decoder layer, (B, Hkv, N, d), rotated as in the KV cache.

    Where the model counts padding in its position ids, the keys are those of the row without
    padding.

    Attributes:
        layer: 0-based decoder layer, less than the boundary that reads it.
    """

    layer: int


@dataclass(frozen=True)
class DecoderHeads:
    """Queries and keys (`Heads`) of all columns in the decoder layer before each boundary."""


@dataclass(frozen=True)
class DecoderTransition:
    """How much attention and MLP of one decoder layer changed every column, (B, 2, N, 2).

    Axis 1 is attention, MLP. The last axis has two values: the norm of the output divided by the
    norm of the input, and the cosine between output and input. Scaling or norms that a layer
    applies to the output before the residual addition are not included.

    Attributes:
        layer: 0-based decoder layer, less than the boundary that reads it.
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


RecordScores = Callable[[Tensor, Tensor | None], None]


class Signals:
    """The signals of B items with the same layout, or of a batch at a boundary: `signals[need]`.

    Attributes:
        project: Function that maps rows (..., C) of `ProjectorInput` to the LLM's width (..., D).
    """

    def __init__(
        self,
        values: Mapping[Need, Tensor | Heads | None],
        project: Callable[[Tensor], Tensor] = lambda x: x,
        record: RecordScores | None = None,
    ):
        self._values = values
        self.project = project
        self._record = record

    def record(self, scores: Tensor, ranked: Tensor | None = None) -> None:
        """Keep the scores by which tokens are ranked, if the caller asked for them.

        Without `record_scores=True` nothing happens. Call it at every place that ranks tokens.

        Args:
            scores: (B, N) one score per token or sequence position; larger is kept.
            ranked: (B, N) bool, which of them were ranked. The default is all patches before the
                LLM, and all visual tokens inside it.
        """
        if self._record is not None:
            self._record(scores.detach(), ranked)

    @overload
    def __getitem__(self, need: ClassState) -> Tensor | None: ...
    @overload
    def __getitem__(self, need: DecoderHeads) -> Heads: ...
    @overload
    def __getitem__(self, need: Need) -> Tensor: ...
    def __getitem__(self, need: Need) -> Tensor | Heads | None:
        return self._values[need]
