"""Position ids of columns: what RoPE rotates by, before and after tokens are dropped.

"original" positions keep the ids of the whole prompt, with gaps. "packed" ones are renumbered, so
that decoded tokens must be shifted by what is missing.
"""

from __future__ import annotations

from torch import Tensor


def rotating(positions: Tensor) -> Tensor:
    """The ids that RoPE uses of position ids (..., B, N).

    Of four rows the first holds text positions, which serve masks only; three are (t, h, w).
    """
    return positions[1:] if positions.dim() == 3 and positions.shape[0] == 4 else positions


def gather_positions(positions: Tensor, index: Tensor) -> Tensor:
    """Position ids (..., B or 1, L) at columns (B, N) -> (..., B, N)."""
    shape = (*positions.shape[:-2], *index.shape)
    return positions.expand(*positions.shape[:-2], index.shape[0], -1).gather(
        -1, index.expand(shape)
    )


def renumbered(valid: Tensor, like: Tensor, offset: int) -> Tensor:
    """Position ids that count the valid columns of each row from `offset`, shaped like `like`."""
    ids = (valid.long().cumsum(1) - 1).clamp(min=0) + offset
    return ids.expand(*like.shape[:-2], *valid.shape)


def untouched(columns: Tensor, valid: Tensor, before: Tensor) -> Tensor:
    """Which rows (B,) lose no column and keep their order.

    Such a row keeps its position ids, because alone in a batch it would run as in the bare model.

    Args:
        columns: the columns that are left, (B, N).
        valid: which of these are not padding, (B, N) bool.
        before: which columns were there before, (B, L) bool.
    """
    inner = valid[:, 1:] & valid[:, :-1]
    ordered = ((columns.diff(dim=1) > 0) | ~inner).all(1)
    return ordered & (valid.sum(1) == before.sum(1))


def last_column(valid: Tensor) -> Tensor:
    """Column (B,) of the last valid entry of each row of `valid` (B, N)."""
    n = valid.shape[1]
    return n - 1 - valid.flip(1).long().argmax(1)


def decode_shift(positions: Tensor, valid: Tensor, stage: Tensor, stage_valid: Tensor) -> Tensor:
    """How much smaller packed position ids are than original ones after the prompt, (..., B, 1).

    Args:
        positions: original ids, (..., B or 1, L).
        valid: columns of these that are not padding, (B, L) bool.
        stage: packed ids, (..., B, N).
        stage_valid: columns of these that are not padding, (B, N) bool.
    """
    end = last_column(valid)[:, None]
    stage_end = last_column(stage_valid)[:, None]
    return gather_positions(positions, end) - gather_positions(stage, stage_end)


def shifted(positions: Tensor, shift: Tensor | None) -> Tensor:
    """Position ids of new tokens (..., B, q), less what the layers of a stage subtract."""
    if shift is None:
        return positions
    if positions.dim() == 3 and shift.dim() == 3 and positions.shape[0] != shift.shape[0]:
        shift = shift[-1:]
    return positions - shift


def rows_of_positions(positions: Tensor | None, rows: Tensor) -> Tensor | None:
    """Rows of position ids (..., B or 1, N); one row that all samples share stays as it is."""
    if positions is None or positions.shape[-2] == 1:
        return positions
    return positions.index_select(-2, rows)
