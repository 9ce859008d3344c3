"""The contracts of the stages: what a part of a method implements, and what the engine passes in.

A method consists of parts. Each part acts at one stage: before the vision encoder ("frames"),
inside the vision encoder ("encoders"), before the LLM ("tokens"), or inside the LLM ("layers",
"caches"). Parts read tensors and return tensors. The engine does the rest: hooks, attention masks,
the KV cache, and what differs between model families.

Words and shapes:

- B: rows of the batch. A row is one sample (one prompt).
- column: one sequence position of the batch at a decoder layer. It is a text token, a visual token
  or padding. All rows of a batch are padded to N columns.
- item: one image or one video of a row, numbered from 0 in the order of the prompt.
- boundary k: the point before decoder layer k (0-based). Columns that are dropped at boundary k
  do not enter layer k or any later layer.
- D: width of the LLM. C: width of the vision encoder. H, Hkv, d: query heads, key heads, head
  width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from numbers import Integral
from typing import Any, ClassVar, Protocol

from torch import Tensor

from foveate.attention_call import Attend, AttentionCall, Columns, Feed, MLPCall, unrecorded
from foveate.errors import FoveateError, UnsupportedCall, shown
from foveate.ops.attention import Heads
from foveate.signals import Need, Signals
from foveate.tokens import Grid, VisualTokens

STAGES = (
    "frames",
    "encoders",
    "tokens",
    "projectors",
    "layers",
    "caches",
    "decoding",
    "pipelines",
)
POSITIONS = ("native", "original", "packed")


@dataclass(frozen=True)
class Widths:
    """Sizes of a model that the selection overhead of a method depends on.

    Attributes:
        tower: Width of the vision encoder, 0 where it is not a transformer.
        head: Width of one of its attention heads, 0 where it is not a transformer.
        blocks: Number of its blocks, 0 where it is not a transformer.
        model: Width of the LLM.
        keys: Width of the LLM's keys, summed over all key heads.
    """

    tower: int
    head: int
    blocks: int
    model: int
    keys: int


class Part:
    """Base of all parts.

    Attributes:
        stage: One of `STAGES`.
        positions: Position ids of the kept tokens: "original" keeps the ids of the full prompt,
            with gaps; "packed" renumbers the kept tokens; "native" renumbers, except in models with
            M-RoPE.
        drawn_as: How pictures show the result: "patches" (kept, merged or dropped patches),
            "pooled" (the cells of a coarse grid), "low-pass" (the low spatial frequencies of the
            image) or "smaller" (an image with fewer pixels).
    """

    stage: ClassVar[str]
    drawn_as: ClassVar[str] = "patches"
    positions: str = "original"

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        """Selection overhead of this part in FLOPs; a multiply-add counts as two.

        Sorting, gathering and element-wise work are not counted.

        Args:
            n: Tokens of one item before the part. For parts at boundaries: columns that reach the
                boundary.
            keep: Tokens after it.
            widths: Sizes of the model.
        """
        return 0

    @property
    def needs(self) -> tuple[Need, ...]:
        """Signals that this part reads. The engine records these and computes nothing else."""
        return ()

    @property
    def owner(self) -> Part:
        """The object whose `notes` this part shares. Parts with the same owner share notes."""
        return self

    def needs_in(self, layers: int) -> tuple[Need, ...]:
        """Signals that this part reads in a decoder of `layers` layers. Defaults to `needs`."""
        return self.needs

    def left(self, grid: Grid, n: int) -> Grid:
        """Layout of the n tokens that are left of an item, as far as its grid alone determines it.

        Override it where the part knows how many tokens of each view and how many special tokens
        are left. By default all n tokens count as patches of one view.
        """
        return Grid(1, 1, n)


class FramesPart(Part):
    """Changes the input of the vision encoder."""

    stage = "frames"

    def shape(self, grid: Grid) -> tuple[int, int]:
        """Rows and columns of tokens to encode, instead of `grid.h` and `grid.w`."""
        raise NotImplementedError


def _unknown() -> Any:
    raise NotImplementedError


@dataclass
class BlockState:
    """Tokens inside one block of the vision encoder, after attention and before the MLP.

    B counts crops or frames, T their tokens.

    Attributes:
        hidden: (B, T, C) hidden states after attention.
        keys: (B, H, T, d) keys of this block before any rotation.
        size: (B, T) float, how many patches each token stands for. 0 at padding, which comes after
            all tokens of its row.
        class_token: Whether token 0 is a class token.
        entered: Number of patches per crop or frame that entered the first block.
        attention: Function that returns probabilities (B, H, T): the attention of this block's
            class token to each token. Without a class token: the mean attention that each token
            receives.
        distill_token: Whether token 1 is a distillation token.
        even: Whether no row has padding.
        record: Function that takes scores (B, P) of the patches, without class and distillation
            token. Call it where patches are ranked. It keeps them if the caller asked for scores.
    """

    hidden: Tensor
    keys: Tensor
    size: Tensor
    class_token: bool
    entered: int
    attention: Callable[[], Tensor] = field(default=_unknown)
    distill_token: bool = False
    even: bool = False
    record: Callable[[Tensor], None] = field(default=unrecorded)

    @property
    def valid(self) -> Tensor:
        """(B, T) bool: False at padding."""
        return self.size > 0


class EncodersPart(Part):
    """Merges tokens inside the vision encoder.

    Attributes:
        proportional: Add log(size) to the attention logits of merged tokens (proportional
            attention).
        even: Every crop and frame has the same number of tokens after each block, so no row needs
            padding and the engine need not read counts from the device.
    """

    stage = "encoders"
    proportional: bool = True
    even: bool = False

    def shares(self, grid: Grid) -> tuple[int, ...] | None:
        """Number of patches of each crop or frame that leave the vision encoder.

        Returns None where the number depends on features. Some families cut padding off a crop
        after the vision encoder; the crop still keeps the number that is returned here.
        """
        return None

    def count(self, grid: Grid) -> int:
        """Number of tokens of an item that leave the vision encoder, special tokens included."""
        shares = self.shares(grid)
        if shares is None:
            raise UnsupportedCall(
                f"{type(self).__name__} keeps a number of tokens that depends on the image, so it "
                "is not known before encoding; use a method with a fixed keep."
            )
        return sum(shares) + grid.special

    def vectors(self, block: int, blocks: int) -> int:
        """Number of vectors E that `beside` returns for this block."""
        return 0

    def beside(self, block: int, blocks: int, state: Tensor) -> Tensor | None:
        """Extra vectors (B, E, C) for the attention of this block, or None.

        The block's tokens attend to them as keys and values. They are not queries and leave no
        token behind.

        Args:
            block: 0-based index of the block.
            blocks: Number of blocks.
            state: (B, C) the class token that enters the block, or the mean of its tokens.
        """
        return None

    def merge(
        self, block: int, blocks: int, state: BlockState
    ) -> tuple[Tensor, int] | tuple[Tensor, int, Tensor] | None:
        """Which tokens merge in this block.

        Padding in the result is handled by the engine: other tokens never attend to it, and a batch
        gives the same result as its rows alone.

        Args:
            block: 0-based index of the block.
            blocks: Number of blocks.
            state: The block's tokens.

        Returns:
            None for no change, or (assign, count), or (assign, count, weights).
            assign: (B, T) int, the merged token (0 to count - 1) that each token goes into, -1 at
                padding. Each row numbers its merged tokens from 0 without gaps. Rows may have
                different numbers of them.
            count: The largest number of merged tokens in a row.
            weights: (B, T) a merged vector is the sum of its members times their weights. Without
                weights it is the mean of its members, weighted by size.
        """
        raise NotImplementedError


def merged_grid(shares: tuple[int, ...], grid: Grid) -> Grid:
    """Grid of an item after the vision encoder keeps `shares` patches of its crops or frames."""
    patches = sum(shares)
    same = patches == grid.patches
    return grid if same else Grid(1, 1, patches, shares, grid.special)


def grid_after(parts: Sequence[Part], grid: Grid) -> Grid:
    """Grid of an item after `parts` in the order in which they run, computed without features."""
    for merges, group in groupby(parts, lambda part: isinstance(part, EncodersPart)):
        members = list(group)
        if merges:
            shares = smallest_shares(members, grid)  # type: ignore[arg-type]
            if shares is None:
                # `count` raises, with the reason, where it depends on features.
                return Grid(1, 1, min(part.count(grid) for part in members))  # type: ignore
            grid = merged_grid(shares, grid)
            continue
        for part in members:
            n = counted(part, grid) if hasattr(part, "count") else grid.n
            grid = grid if n == grid.n else part.left(grid, n)
    return grid


def counted(part: Any, grid: Grid) -> int:
    """Number of tokens of an item that `part.count` promises, checked."""
    n = part.count(grid)
    if isinstance(n, bool) or not isinstance(n, Integral) or not 1 <= n <= grid.n:
        raise FoveateError(
            f"{type(part).__name__}.count returned {shown(n)} for an item of {grid.n} tokens; "
            f"return a whole number from 1 to {grid.n}."
        )
    return int(n)


def smallest_shares(merging: Sequence[EncodersPart], grid: Grid) -> tuple[int, ...] | None:
    """Patches of each crop or frame after all merging parts; None where it depends on features.

    Each part counts what entered the vision encoder, so the smallest number holds.
    """
    shares = [part.shares(grid) for part in merging]
    return None if None in shares else tuple(map(min, zip(*shares, strict=True)))


class TokensPart(Part):
    """Reduces the visual tokens between the projector and the LLM."""

    stage = "tokens"

    def count(self, grid: Grid) -> int:
        """Number of tokens that `reduce` returns for an item with this grid."""
        raise NotImplementedError

    def reduce(self, tokens: VisualTokens, signals: Signals, keep: int) -> VisualTokens:
        """Return exactly `keep` tokens per item.

        Args:
            tokens: Tokens of B items with the same layout.
            signals: The signals that `needs` names, aligned with `tokens`.
            keep: Number of tokens to return, as `count` promised.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Merge:
    """Result of `at_boundary`: columns merge. Text columns are always kept.

    Attributes:
        into: (B, N) int, the column that each column merges into. A column that names itself is
            kept; -1 drops a column.
        weight: (B, N) float, the weight of each column's hidden state in the sum that it merges
            into.
        place: (B, N) int, the kept columns are sorted by it, ties by column. None keeps the order.
    """

    into: Tensor
    weight: Tensor
    place: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Soft:
    """Result of `at_boundary` in training: no column is dropped, some get less attention.

    Attributes:
        log_weight: (B, N) float, added to the attention logits of these key columns from this layer
            on, in addition to the weights of earlier boundaries. Gradients flow through it. Read
            for visual columns only.
    """

    log_weight: Tensor


@dataclass(frozen=True)
class Counts:
    """Column counts of a batch that are known on the host, so that parts need no device sync.

    Attributes:
        entered: Visual tokens of each row that entered layer 0.
        held: For each row and item, the number of the item's columns at this boundary.
        text: Text columns of each row.
        behind: For each row and item, an upper bound of the text columns after the item.
        since: For each row, an upper bound of the text columns after its first visual column.
        frames: Upper bound of the temporal steps of any item.
        patches: For each row and item, the number of patches before any reduction. None where
            unknown.
    """

    entered: list[int]
    held: list[list[int]]
    text: list[int]
    behind: list[list[int]]
    since: list[int]
    frames: int
    patches: list[list[int]] | None = None

    @property
    def visual(self) -> list[int]:
        """Visual columns of each row."""
        return [sum(row) for row in self.held]

    @property
    def items(self) -> list[int]:
        """Visual items of each row."""
        return [len(row) for row in self.held]

    @property
    def asking(self) -> int:
        """Upper bound of the text columns after the last visual column, over all rows."""
        most = 0
        for text, held, behind in zip(self.text, self.held, self.behind, strict=True):
            left = [n for n, columns in zip(behind, held, strict=True) if columns]
            most = max(most, min(left, default=text))
        return most


@dataclass
class BoundaryState:
    """The columns at boundary k, that is, the hidden states that enter decoder layer k.

    Attributes:
        hidden: (B, N, D) hidden states.
        valid: (B, N) bool, False at padding.
        visual: (B, N) bool, True at visual tokens.
        item: (B, N) int, index of the image or video within the row, -1 for text.
        entered: (B,) int, visual tokens of each row that entered layer 0.
        last: (B,) int, column of the last prompt token.
        labels: (B, N) int, training targets, or None.
        attention: Function of rows (B, R) int, which are columns used as queries. It returns
            attention probabilities (B, H, R, N) over all columns, computed with the queries and
            keys of layer k. Key heads are repeated for grouped-query attention.
        signals: The signals that `needs` names, for all columns.
        norm: The final norm of the decoder, as a function of hidden states.
        heads: Function that returns the queries and keys of layer k for all columns.
        places: Function that returns two tensors (B, N, 3) int: the (t, h, w) position of each
            visual column in its item, -1 for text and special tokens; and the (t, h, w) extent of
            that item, 0 for text.
        frame: (B, N) int, temporal step of the column in its video, 0 in an image, -1 for text.
        place: (B, N, 3) int, (t, h, w) position in the item's grid, -1 for text and for tokens that
            stand for no patch.
        notes: A dict for this part's own values. It lasts from boundary to boundary for one prompt.
        counts: Column counts known on the host, or None. Read them through `known`.
    """

    hidden: Tensor
    valid: Tensor
    visual: Tensor
    item: Tensor
    entered: Tensor
    last: Tensor
    labels: Tensor | None
    attention: Callable[[Tensor], Tensor]
    signals: Signals
    norm: Callable[[Tensor], Tensor] = lambda x: x
    heads: Callable[[], Heads] = field(default=_unknown)
    places: Callable[[], tuple[Tensor, Tensor]] = field(default=_unknown)
    frame: Tensor = field(default=None)  # type: ignore[assignment]
    place: Tensor = field(default=None)  # type: ignore[assignment]
    notes: dict[str, Any] = field(default_factory=dict)
    counts: Counts | None = None

    @property
    def known(self) -> Counts:
        """`counts`. Where the state was made without them, they are read from the device."""
        if self.counts is not None:
            return self.counts
        held, behind = [], []
        item, text = self.item.cpu(), (self.valid & ~self.visual).cpu()
        for row, words in zip(item, text, strict=True):
            places = [(row == i).nonzero()[:, 0] for i in range(int(row.max()) + 1)]
            held.append([len(own) for own in places])
            behind.append([int(words[int(own[-1]) :].sum()) if len(own) else 0 for own in places])
        count = text.sum(1).tolist()
        frames = 1 if self.frame is None else int(self.frame.max()) + 1
        return Counts(self.entered.tolist(), held, count, behind, count, frames)


class LayersPart(Part):
    """Drops or merges visual tokens between decoder layers during prefill."""

    stage = "layers"

    def boundaries(self, layers: int) -> tuple[int, ...]:
        """Ascending boundaries at which tokens may be dropped or merged.

        Args:
            layers: Number of decoder layers.
        """
        raise NotImplementedError

    def needs_in(self, layers: int) -> tuple[Need, ...]:
        """Signals that this part reads in a decoder of `layers` layers. Defaults to `needs`."""
        return self.needs

    def at_boundary(
        self, k: int, layers: int, state: BoundaryState
    ) -> Tensor | Merge | Soft | None:
        """Which columns enter decoder layer k.

        Args:
            k: The boundary, 0-based.
            layers: Number of decoder layers.
            state: The columns at the boundary.

        Returns:
            (B, N) bool, True for columns to keep; text columns are always kept. None keeps all
                columns. A `Merge` where columns merge or change their order. A `Soft` in training.
        """
        raise NotImplementedError


class Store(Protocol):
    """Keys and values of N cached columns in the format of a method, such as quantised.

    Attributes:
        index: (B, N) int, ascending, which of the original columns are stored. None for all of
            them.
        valid: (B, N) bool, False at padding.
        nbytes: Size in bytes of the keys, the values and everything that reading them needs.
    """

    index: Tensor | None
    valid: Tensor

    @property
    def nbytes(self) -> int: ...

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values (B, Hkv, N, d). Values at padding are arbitrary."""
        ...

    def take(self, rows: Tensor) -> Store:
        """The store of the samples `rows` (R,), in this order; beam search may repeat a sample."""
        ...


class DirectStore(Store, Protocol):
    """A store that new tokens can attend to without unpacking it.

    Its columns may be in any order, but padding comes last.
    """

    def products_into(self, out: Tensor, rows: Tensor) -> None:
        """Write the products of queries and stored keys to `out`; leave `out` unchanged at padding.

        Args:
            out: (B, Hkv, R, N) float32.
            rows: (B, Hkv, R, d) queries.
        """
        ...

    def mixed(self, weights: Tensor) -> Tensor:
        """Weighted sum (B, Hkv, R, d) of the values.

        Args:
            weights: (B, Hkv, R, N), 0 at padding.
        """
        ...


@dataclass
class CacheState:
    """Columns in the KV cache of one decoder layer.

    Attributes:
        keys: (B, Hkv, N, d), rotated.
        values: (B, Hkv, N, d).
        valid: (B, N) bool, False at padding.
        visual: (B, N) bool, True at visual tokens.
        item: (B, N) int, index of the image or video within the row, -1 for text.
        attention: (B, H, N) attention of the newest token to these columns. None where the columns
            are the prompt.
        layer: 0-based decoder layer.
        layers: Number of decoder layers.
        notes: Values of this part's owner for the same prompt.
        pictured: For each row, whether its prompt has visual tokens.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor
    visual: Tensor
    item: Tensor
    attention: Tensor | None
    layer: int
    layers: int
    notes: dict
    pictured: list[bool]


class CachesPart(Part):
    """Changes the form in which decoder layers cache the prompt and the new tokens.

    It does not run for layers with sliding-window attention, whose cache is bounded already.

    Attributes:
        gap: Number of new tokens that are cached unchanged before `hold` is called for them. None
            leaves all new tokens unchanged.
    """

    stage = "caches"
    gap: int | None = None

    def hold(self, state: CacheState) -> Store | None:
        """What to cache instead of the columns of `state`; None caches them unchanged.

        It is called once for the prompt, where columns may be dropped, and then for every `gap` new
        tokens, which must all be kept.
        """
        raise NotImplementedError


class RulePart(Part):
    """Changes how decoder layers compute; every column is kept.

    A rule acts in prefill and in decode. Override the methods that it needs. Several rules of one
    layer run in the order of their parts; the first is the outermost.

    Parts that compute the attention of a layer ahead of it (`BoundaryState.attention`) take `place`
    into account. They are refused where a rule uses `raw`.

    Attributes:
        textual: The rule also acts on prompts without visual tokens.
        prompt_only: `attend` and `feed` act in prefill only; decode runs the unchanged layers, at
            no extra cost.
        virtual: The rule attends to columns that are not in the layer. No other rule can then use
            `attend` or `place` in that layer.
    """

    stage = "layers"
    textual: ClassVar[bool] = False
    prompt_only: ClassVar[bool] = False
    virtual: ClassVar[bool] = False

    def layers(self, n: int) -> tuple[int, ...]:
        """Layers in which the rule acts.

        Args:
            n: Number of decoder layers.
        """
        return tuple(range(n))

    def place(self, columns: Columns, notes: dict[str, Tensor]) -> Tensor | None:
        """Position ids for the rotary embedding; None leaves them unchanged. Fractions are allowed.

        It is called once for the prompt and once for every later call.

        Args:
            columns: The columns that run in this call.
            notes: Values that this rule stored for the same prompt.

        Returns:
            (B, N), or the shape of `columns.positions`.
        """
        return None

    def raw(self, columns: Columns) -> Tensor | None:
        """Columns (B, N) bool whose queries and keys are not rotated; None for none.

        Keys are cached in this state, so the answer for a column must not change between calls.
        """
        return None

    def attend(self, call: AttentionCall, proceed: Attend) -> Tensor:
        """Output (B, q, H, d) of one attention call.

        `proceed(call)` runs the next rule, or the model's attention kernel.
        """
        return proceed(call)

    def feed(self, call: MLPCall, proceed: Feed) -> Tensor:
        """Output (B, N, D) of one MLP call.

        `proceed(call)` runs the next rule, or the layer's MLP.
        """
        return proceed(call)


@dataclass(frozen=True, eq=False)
class Detour:
    """Which columns run through one decoder layer; the others skip it unchanged.

    Attributes:
        run: (B, N) bool, True for columns that run. Text columns always run.
        gate: (B, N) float, a visual column that runs becomes x + gate * (layer(x) - x). None means
            1.
        follow: (B, N) int, for a visual column that skips the layer: the column f whose update it
            takes, x + layer(x_f) - x_f. -1 for no update. None for no updates at all.
    """

    run: Tensor
    gate: Tensor | None = None
    follow: Tensor | None = None


class DetourPart(Part):
    """Lets visual tokens skip single decoder layers during prefill.

    A column that skips a layer is not in the KV cache of that layer. It keeps its position id and
    its place in the sequence.
    """

    stage = "layers"

    def layers(self, layers: int) -> tuple[int, ...]:
        """Ascending layers that columns may skip.

        Args:
            layers: Number of decoder layers.
        """
        raise NotImplementedError

    def runs(self, i: int, layers: int, state: BoundaryState) -> Detour | None:
        """Which columns run through decoder layer i; None means all.

        `state` is that of boundary i, after the parts that drop columns there. Its `hidden` carries
        gradients, unlike in `LayersPart.at_boundary`.
        """
        raise NotImplementedError
