"""The contracts of the stages: what a part of a method implements, and what the engine hands it.

A part lives at exactly one stage of the road from pixels to answer. Parts see tensors and
declarations only; hooks, masks, caches and model families are the engine's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from numbers import Integral
from typing import Any, ClassVar, Protocol

from torch import Tensor

from foveate.attention_call import Attend, AttentionCall, Columns, Feed, MLPCall
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
    """Sizes of a model that the cost of choosing depends on.

    tower, head, blocks: width, head width and blocks of the vision tower, 0 where it is no
    transformer. model, keys: width of the language model, and of its keys over all heads.
    """

    tower: int
    head: int
    blocks: int
    model: int
    keys: int


class Part:
    """Base of all parts. `stage` is one of `STAGES`; `needs` are the signals it will read.

    drawn_as: how pictures show its tokens: "patches" (kept, merged or dropped), "low-pass" (the
    low spatial frequencies of the picture) or "smaller" (a picture of fewer pixels).
    """

    stage: ClassVar[str]
    drawn_as: ClassVar[str] = "patches"
    positions: str = "original"

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        """FLOPs of choosing by itself, a multiply-add as two, to go from n tokens to `keep`.

        n counts an item's tokens, at the layers stage the columns that reach a boundary. Sorting,
        gathering and element-wise work is not counted.
        """
        return 0

    @property
    def needs(self) -> tuple[Need, ...]:
        """Signals that the engine records for this part; nothing else is computed."""
        return ()

    @property
    def owner(self) -> Part:
        """Parts with the same owner share their `notes`."""
        return self

    def needs_in(self, layers: int) -> tuple[Need, ...]:
        """`needs` in a decoder of `layers` layers, for parts that scale with its depth."""
        return self.needs

    def left(self, grid: Grid, n: int) -> Grid:
        """What is known beforehand of the n tokens that this part leaves of such an item.

        Views and special tokens where it says how many of each; all count as patches otherwise.
        """
        return Grid(1, 1, n)


class FramesPart(Part):
    """Changes what the encoder gets to see."""

    stage = "frames"

    def shape(self, grid: Grid) -> tuple[int, int]:
        """Rows and columns of tokens that the encoder shall make in place of `grid.h`, `grid.w`."""
        raise NotImplementedError


def _unknown() -> Any:
    raise NotImplementedError


@dataclass
class BlockState:
    """What a part sees inside one block of the vision tower, between attention and MLP.

    hidden (B, T, C): the residual stream after attention; B counts crops or frames.
    keys (B, H, T, d): this block's key projections, before any rotation.
    size (B, T): patches that each token stands for, 0 for padding, which stands behind all tokens
    of its row. class_token: row 0 is a class token.
    entered: patches per crop or frame that entered the first block.
    attention(): probabilities (B, H, T) that this block's class token gave each token, or, where
    there is none, the mean over all tokens of what each received.
    distill_token: the row behind the class token is a distillation token.
    even: no row has padding.
    """

    hidden: Tensor
    keys: Tensor
    size: Tensor
    class_token: bool
    entered: int
    attention: Callable[[], Tensor] = field(default=_unknown)
    distill_token: bool = False
    even: bool = False

    @property
    def valid(self) -> Tensor:
        """(B, T) bool: tokens that are no padding."""
        return self.size > 0


class EncodersPart(Part):
    """Merges tokens inside the vision tower.

    proportional: add log(size) to the attention logits of merged tokens.
    even: all crops and frames leave a block with as many tokens, so that nobody has to ask.
    """

    stage = "encoders"
    proportional: bool = True
    even: bool = False

    def shares(self, grid: Grid) -> tuple[int, ...] | None:
        """Patches of each crop or frame of such an item that leave the tower.

        The engine keeps to it where a family cuts the padding off a crop behind the tower. None
        where the number follows from features.
        """
        return None

    def count(self, grid: Grid) -> int:
        """Tokens that leave the tower, special ones included."""
        shares = self.shares(grid)
        if shares is None:
            raise UnsupportedCall(
                f"{type(self).__name__} does not say how many tokens it leaves before it has seen "
                "them; use a method with a budget."
            )
        return sum(shares) + grid.special

    def vectors(self, block: int, blocks: int) -> int:
        """How many `beside` gives this block."""
        return 0

    def beside(self, block: int, blocks: int, state: Tensor) -> Tensor | None:
        """Vectors (B, E, C) that this block's attention sees beside the tokens, or None.

        state (B, C): the class token that enters the block, or the mean of its tokens. The vectors
        are keys and values only: no token comes of them.
        """
        return None

    def merge(
        self, block: int, blocks: int, state: BlockState
    ) -> tuple[Tensor, int] | tuple[Tensor, int, Tensor] | None:
        """Assignment (B, T) of every token to one of `count` merged tokens, or None for no change.

        Merged vectors are the size-weighted means of their members, or with weights (B, T) as a
        third value the sums of members times weights. block: 0-based of `blocks`.
        Rows may end with different counts, each numbered from 0 without gaps: `count` is the
        largest, and padding belongs to -1. No token sees padding: a batch gives what its rows give.
        """
        raise NotImplementedError


def merged_grid(shares: tuple[int, ...], grid: Grid) -> Grid:
    """Extent of an item whose crops or frames each leave the tower with their share."""
    patches = sum(shares)
    same = patches == grid.patches
    return grid if same else Grid(1, 1, patches, shares, grid.special)


def extent_behind(parts: Sequence[Part], grid: Grid) -> Grid:
    """What is known beforehand of an item behind parts in road order."""
    for merges, group in groupby(parts, lambda part: isinstance(part, EncodersPart)):
        members = list(group)
        if merges:
            shares = fewest(members, grid)  # type: ignore[arg-type]
            if shares is None:
                # Whoever has none says why.
                return Grid(1, 1, min(part.count(grid) for part in members))  # type: ignore
            grid = merged_grid(shares, grid)
            continue
        for part in members:
            n = counted(part, grid) if hasattr(part, "count") else grid.n
            grid = grid if n == grid.n else part.left(grid, n)
    return grid


def counted(part: Any, grid: Grid) -> int:
    """Tokens that a part promises to leave of such an item."""
    n = part.count(grid)
    if isinstance(n, bool) or not isinstance(n, Integral) or not 1 <= n <= grid.n:
        raise FoveateError(
            f"{type(part).__name__}.count returned {shown(n)} for an item of {grid.n} tokens; "
            f"return a whole number from 1 to {grid.n}."
        )
    return int(n)


def fewest(merging: Sequence[EncodersPart], grid: Grid) -> tuple[int, ...] | None:
    """Patches of each crop or frame behind all parts inside the tower, None where nobody knows.

    Each counts what entered the tower, so the one that keeps least decides.
    """
    shares = [part.shares(grid) for part in merging]
    return None if None in shares else tuple(map(min, zip(*shares, strict=True)))


class TokensPart(Part):
    """Reduces the tokens of visual items between encoder and language model."""

    stage = "tokens"

    def count(self, grid: Grid) -> int:
        """Tokens that `reduce` will return for an item of this extent."""
        raise NotImplementedError

    def reduce(self, tokens: VisualTokens, signals: Signals, keep: int) -> VisualTokens:
        """Exactly `keep` tokens per item out of B equally laid out items."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Merge:
    """What goes on from a boundary where tokens merge; text stays whatever is said.

    into (B, N) int: the column that takes each one in. A column that takes itself in goes on; -1
    takes a column to nowhere. weight (B, N): share of each column's state in the sum that goes on.
    place (B, N) int: columns go on in ascending order of it, ties by column; None leaves them.
    """

    into: Tensor
    weight: Tensor
    place: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Soft:
    """Nothing goes, but columns weigh less as keys from this boundary on: how choices are trained.

    log_weight (B, N): added to the attention logits of these columns, on top of what earlier
    boundaries said; gradients flow through it. Read for visual columns only.
    """

    log_weight: Tensor


@dataclass(frozen=True)
class Counts:
    """What the host knows of the rows of a batch, so that no part has to ask the device for it.

    Attributes:
        entered: visual tokens of each row that entered layer 0.
        held: per row and visual item, the item's columns here.
        text: text columns of each row.
        behind: per row and visual item, at most so many text columns are behind the item.
        since: at most so many text columns of each row are behind its first visual column.
        frames: no item has more temporal steps.
        patches: per row and visual item, its patches before anything was reduced; None where that
            is not known.
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
        """At most so many text columns has a row behind its last visual column."""
        most = 0
        for text, held, behind in zip(self.text, self.held, self.behind, strict=True):
            left = [n for n, columns in zip(behind, held, strict=True) if columns]
            most = max(most, min(left, default=text))
        return most


@dataclass
class BoundaryState:
    """What a part sees at boundary k: the residual stream that enters decoder layer k.

    hidden (B, N, D). valid (B, N) bool: columns that are no padding.
    visual (B, N) bool: columns that hold visual tokens. item (B, N) int: which visual item of the
    row each belongs to, -1 for text. entered (B,) int: visual tokens that entered layer 0 per row.
    last (B,) int: column of the last prompt token. labels (B, N): training targets, or None.
    attention(rows): probabilities (B, H, R, N) that the next layer's own queries and keys give the
    columns `rows` (B, R) over all columns, with heads repeated for grouped queries.
    signals: what `needs` asked for. norm: the decoder's final norm.
    heads(): queries and keys that the next layer will make of all columns.
    places(): where visual columns stand in their item: (t, h, w) (B, N, 3) int, -1 for text and
    special tokens, and the (t, h, w) extent (B, N, 3) of that item, 0 for text.
    frame (B, N) int: temporal step in a video, 0 in a picture, -1 for text.
    place (B, N, 3) int: (t, h, w) in the item's own grid, -1 for text and what is no patch.
    notes: what this part wrote into it at earlier boundaries of the same prompt.
    counts: how many columns of each kind there are, as `known` tells; None reads it off.
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
        """`counts`, read off the device where the state was made without them."""
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
    """Drops or merges visual tokens between decoder layers while the prompt runs through them."""

    stage = "layers"

    def boundaries(self, layers: int) -> tuple[int, ...]:
        """Ascending boundaries in a decoder of `layers` layers at which tokens may go."""
        raise NotImplementedError

    def needs_in(self, layers: int) -> tuple[Need, ...]:
        """`needs` in a decoder of `layers` layers, for parts that scale with its depth."""
        return self.needs

    def at_boundary(
        self, k: int, layers: int, state: BoundaryState
    ) -> Tensor | Merge | Soft | None:
        """Columns that stay, (B, N) bool, or None for all; text always stays whatever is said.

        A `Merge` where columns take others in or change their order, `Soft` in training.
        """
        raise NotImplementedError


class Store(Protocol):
    """Keys and values of N columns in a part's own form.

    index (B, N): ascending columns that it holds of those it was made from, None for all of them.
    valid (B, N) bool: no padding. nbytes: of keys, values and what reading them takes.
    """

    index: Tensor | None
    valid: Tensor

    @property
    def nbytes(self) -> int: ...

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values (B, Hkv, N, d), anything at padding."""
        ...

    def take(self, rows: Tensor) -> Store:
        """The samples `rows` (R,), in that order and as often, as beams ask for them."""
        ...


class DirectStore(Store, Protocol):
    """A store that new tokens can attend to as it is.

    Its columns come in an order of its own, those that are padding behind all others.
    """

    def products_into(self, out: Tensor, rows: Tensor) -> None:
        """Write products of rows (B, Hkv, R, d) with keys to `out` (B, Hkv, R, N), float32.

        What stands at padding is left as it is.
        """
        ...

    def mixed(self, weights: Tensor) -> Tensor:
        """Values weighted by (B, Hkv, R, N) and summed, (B, Hkv, R, d); padding weighs nothing."""
        ...


@dataclass
class CacheState:
    """What a part sees of columns that a decoder layer has cached.

    keys, values (B, Hkv, N, d): keys rotated. valid (B, N) bool: no padding. visual (B, N) bool.
    item (B, N) int: visual item within the row, -1 for text. attention (B, H, N): what the newest
    token pays these columns; None where they are the prompt. layer: 0-based, of `layers`.
    notes: of this part's owner, for the same prompt. pictured: rows whose prompt has visual tokens.
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
    """Decides how layers hold the prompt once it has run, and what comes behind it.

    gap: new tokens that are held as they are until so many have come; None holds all as they are.
    Layers with a sliding window are not asked: what they hold is bounded already.
    """

    stage = "caches"
    gap: int | None = None

    def hold(self, state: CacheState) -> Store | None:
        """What to hold in place of the columns of `state`, None for themselves.

        Asked for the prompt, of which columns may go, then for every `gap` new tokens, which stay.
        """
        raise NotImplementedError


class RulePart(Part):
    """Says how decoder layers compute; every column stays.

    It holds while the prompt runs and for every token behind it. Rules of one layer run in road
    order: the first one is outermost. A rule overrides what it needs. Parts that look at a layer
    before it runs are told of its `place` only, and refused where columns are `raw`.

    textual: it also holds for prompts without visual tokens. prompt_only: `attend` and `feed` are
    asked while the prompt runs; behind it layers compute as ever, at no cost. virtual: it attends
    to columns that the layer doesn't hold, so that no other rule can attend or place there.
    """

    stage = "layers"
    textual: ClassVar[bool] = False
    prompt_only: ClassVar[bool] = False
    virtual: ClassVar[bool] = False

    def layers(self, n: int) -> tuple[int, ...]:
        """Layers of a decoder of `n` in which the rule holds."""
        return tuple(range(n))

    def place(self, columns: Columns, notes: dict[str, Tensor]) -> Tensor | None:
        """Ids by which columns are rotated, (B, N) or as `columns.positions`; None leaves them.

        Fractions are fine. Asked once for the prompt and once for every later call; `columns` are
        those that run in it. notes: what `place` wrote for the same prompt before.
        """
        return None

    def raw(self, columns: Columns) -> Tensor | None:
        """Columns (B, N) bool that are not rotated at all, queries as well as keys; None for none.

        Keys are cached as they are, so this must not change from call to call.
        """
        return None

    def attend(self, call: AttentionCall, proceed: Attend) -> Tensor:
        """Output (B, q, H, d) of one attention call; `proceed(call)` asks the user's own kernel."""
        return proceed(call)

    def feed(self, call: MLPCall, proceed: Feed) -> Tensor:
        """Output (B, N, D) of one MLP call; `proceed(call)` runs the layer's own."""
        return proceed(call)


@dataclass(frozen=True, eq=False)
class Detour:
    """Which columns run through one decoder layer; the others go around it and are there again.

    run (B, N) bool: text runs whatever is said. gate (B, N): a visual column that runs becomes
    x + gate * (layer(x) - x); None is 1. follow (B, N) int: the column whose update a visual column
    that doesn't run takes over, x + layer(x_f) - x_f, -1 for none; None leaves all as they are.
    """

    run: Tensor
    gate: Tensor | None = None
    follow: Tensor | None = None


class DetourPart(Part):
    """Leads visual tokens around single decoder layers while the prompt runs through them.

    A column that goes around a layer is not in its cache, and keeps its place and position.
    """

    stage = "layers"

    def layers(self, layers: int) -> tuple[int, ...]:
        """Ascending layers of a decoder of `layers` layers that columns may go around."""
        raise NotImplementedError

    def runs(self, i: int, layers: int, state: BoundaryState) -> Detour | None:
        """Who runs through layer i, None for everybody.

        `state` is that of boundary i, behind what parts dropped there. Unlike there, `state.hidden`
        carries gradients.
        """
        raise NotImplementedError
