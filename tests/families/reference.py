"""Reduced generation by hand: one sample, every step from scratch, no cache, no hook, own masks.

The decoder's layers are called one after another on what the rules say they shall see.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import zoo


@dataclass
class Drop:
    """Columns that leave the prompt.

    kept: columns of the prompt that stay. k: the boundary at which the others leave, None when they
    never reach the decoder. packed: positions are numbered anew from there on. around: per layer
    the columns that run through it; the others go around it.
    """

    kept: Tensor
    k: int | None = None
    packed: bool = False
    around: dict[int, Tensor] = field(default_factory=dict)


def visual_columns(sample: zoo.Sample) -> Tensor:
    """Columns (V,) of visual tokens."""
    ids = torch.tensor(sample.ids)
    return ((ids == zoo.IMAGE) | (ids == zoo.VIDEO)).nonzero()[:, 0]


def every_second(sample: zoo.Sample, start: int = 0, per_item: bool = True) -> Tensor:
    """Columns of text and of every second visual token, of each item or of the row."""
    columns = visual_columns(sample)
    runs = columns.split(sample.items) if per_item else (columns,)
    stays = torch.ones(len(sample.ids), dtype=torch.bool)
    stays[columns] = False
    for run in runs:
        stays[run[start::2]] = True
    return stays.nonzero()[:, 0]


def everything(sample: zoo.Sample) -> Tensor:
    """All columns."""
    return torch.arange(len(sample.ids))


class Reference:
    """One sample of one model, ready to be run with columns left out."""

    def __init__(self, model, name: str, sample: zoo.Sample):
        self.model, self.name, self.sample = model, name, sample
        self.text = model.get_decoder()
        self.embed = model.model.get_input_embeddings()
        self.length = len(sample.ids)
        inputs = zoo.batch(name, [sample])
        self.ids = inputs["input_ids"]
        self.features, self.planes = self._encode(inputs)
        self.positions = self._positions(inputs)
        # Generation counts on from the last prompt token on every axis.
        self.next = self.positions[:, -1:] + 1
        self.offset = 1 if name == "paligemma" else 0

    def _encode(self, inputs: dict) -> tuple[Tensor, list[Tensor]]:
        """Embedded prompt (L, D) and DeepStack planes (L, D), zero where no picture is."""
        visual = (self.ids == zoo.IMAGE) | (self.ids == zoo.VIDEO)
        embedded = self.embed(self.ids.masked_fill(visual, 0))[0].clone()
        planes: list[Tensor] = []
        names = {"image": zoo.pixels_name(self.name), "video": "pixel_values_videos"}
        for modality, pixels in names.items():
            if pixels not in inputs:
                continue
            call = getattr(self.model.model, f"get_{modality}_features")
            given = {k: v for k, v in inputs.items() if k in inspect.signature(call).parameters}
            output = call(**given, return_dict=True)
            marked = zoo.VIDEO if modality == "video" and self.name != "glm4v" else zoo.IMAGE
            where = self.ids[0] == marked
            embedded[where] = flat(output.pooler_output)
            for i, plane in enumerate(getattr(output, "deepstack_features", None) or ()):
                if i == len(planes):
                    planes.append(torch.zeros_like(embedded))
                planes[i][where] = flat(plane)
        return embedded, planes

    def _positions(self, inputs: dict) -> Tensor:
        """Positions (axes, L) of the prompt."""
        if self.name not in zoo.MROPE_FAMILIES:
            return torch.arange(self.length)[None] + (1 if self.name == "paligemma" else 0)
        names = inspect.signature(self.model.model.get_rope_index).parameters
        given = {k: v for k, v in inputs.items() if k in names}
        return self.model.model.get_rope_index(**given)[0][:, 0]

    def _blocks(self) -> Tensor:
        """Per column (L,) the block that sees itself in both directions, -1 for none."""
        if self.name == "paligemma":
            return torch.zeros(self.length, dtype=torch.long)
        if self.name != "gemma3":
            return torch.full((self.length,), -1)
        image = torch.tensor(self.sample.types) == 1
        starts = image & ~torch.cat([image.new_zeros(1), image[:-1]])
        return torch.where(image, starts.long().cumsum(0), -1)

    @torch.no_grad()
    def run(self, drop: Drop, ids: list[int] = ()) -> Tensor:
        """Logits (N, V) of the columns that reach the last layer, `ids` behind the prompt."""
        new = len(ids)
        total = self.length + new
        hidden = self.features
        if new:
            hidden = torch.cat([hidden, self.embed(torch.tensor(ids))])
        behind = self.next + torch.arange(new)
        positions = torch.cat([self.positions, behind], 1)
        blocks = torch.cat([self._blocks(), torch.full((new,), -1)])
        slots = torch.arange(total)
        columns = slots
        stays = torch.cat([drop.kept, torch.arange(self.length, total)])
        planes = [torch.cat([p, p.new_zeros(new, p.shape[1])]) for p in self.planes]
        for i, layer in enumerate(self.text.layers):
            if i == (drop.k or 0):
                hidden, positions, blocks, slots, columns = (
                    hidden[stays],
                    positions[:, stays],
                    blocks[stays],
                    slots[stays],
                    columns[stays],
                )
                planes = [plane[stays] for plane in planes]
                rank = torch.arange(len(stays))
                if drop.packed:
                    positions = (rank + self.offset).expand_as(positions)
                if drop.k is None:
                    # A window over a shorter prompt counts what is there; one inside the decoder
                    # keeps counting the columns of the prompt that it began with.
                    slots = rank
            window = getattr(layer.self_attn, "sliding_window", None)
            runs = torch.arange(len(hidden))
            if i in drop.around:
                runs = torch.isin(columns, drop.around[i]) | (columns >= self.length)
                runs = runs.nonzero()[:, 0]
            mask = _mask(slots[runs], blocks[runs], window)
            out = layer(
                hidden[runs][None],
                attention_mask=mask,
                position_embeddings=self._rotary(hidden[runs], positions[:, runs], i),
                position_ids=None,
                past_key_values=None,
            )[0]
            hidden = hidden.clone()
            hidden[runs] = out
            if i < len(planes):
                hidden = hidden + planes[i]
        return self.model.lm_head(self.text.norm(hidden))

    def _rotary(self, hidden: Tensor, positions: Tensor, layer: int):
        axes = positions[:, None] if len(positions) > 1 else positions
        if self.name == "gemma3":
            kind = self.text.config.layer_types[layer]
            return self.text.rotary_emb(hidden[None], axes, kind)
        return self.text.rotary_emb(hidden[None], axes)

    def generate(self, drop: Drop, steps: int) -> tuple[list[int], Tensor]:
        """Greedy tokens and the logits (steps, V) that chose them."""
        tokens: list[int] = []
        rows = []
        for _ in range(steps):
            rows.append(self.run(drop, tokens)[-1])
            allowed = rows[-1].clone()
            allowed[[zoo.IMAGE, zoo.VIDEO]] = -torch.inf
            tokens.append(int(allowed.argmax()))
        return tokens, torch.stack(rows)


def flat(parts) -> Tensor:
    """Features of all items (N, D)."""
    return torch.cat([x.reshape(-1, x.shape[-1]) for x in parts])


def _mask(slots: Tensor, blocks: Tensor, window: int | None) -> Tensor:
    query, key = slots[:, None], slots[None]
    seen = (key <= query) | ((blocks[:, None] == blocks[None]) & (blocks[:, None] >= 0))
    if window:
        seen &= query - key < window
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
