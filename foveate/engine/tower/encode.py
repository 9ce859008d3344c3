"""One `get_*_features` call: smaller images, token merging in the encoder, recorded signals."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from foveate.engine.anatomy import Anatomy
from foveate.engine.clock import Clock
from foveate.engine.decoder.checkpointing import hooks_outside
from foveate.engine.offloaded_weights import loaded
from foveate.engine.scores import NONE
from foveate.engine.tower.items import Item, Record
from foveate.engine.tower.merging import Merger
from foveate.engine.tower.recording import VisionRecorder
from foveate.errors import UnsupportedCall, UnsupportedModel
from foveate.families.base import Family, resolve_path
from foveate.parts import Part, smallest_shares
from foveate.signals import Need, ProjectorInput, TextEmbeddings, VisionAttention
from foveate.tokens import Layout


class Encoder:
    """Runs the parts before and inside the vision encoder; records signals for other parts."""

    def __init__(self, anatomy: Anatomy, parts: list[Part]):
        self.anatomy = anatomy
        self.frames = [p for p in parts if p.stage == "frames"]
        self.mergers = [p for p in parts if p.stage == "encoders"]
        tokens = [p for p in parts if p.stage == "tokens" and not _keeps_all(p)]
        layers = [n for p in parts if p.stage == "layers" for n in p.needs]
        self.needs = (
            *(need for p in tokens for need in p.needs),
            *(need for need in layers if isinstance(need, VisionAttention)),
        )

    @property
    def made(self) -> tuple[tuple[Part, ...], frozenset[Need]]:
        """The parts that run in the encoder, and the signals that are recorded there."""
        inside = (*self.frames, *self.mergers)
        return inside, frozenset(n for n in self.needs if not isinstance(n, TextEmbeddings))

    def serves(self, record: Record) -> bool:
        """Whether the record has everything that this encoder would produce."""
        (inside, needs), (had, recorded) = self.made, record.made
        return inside == had and needs <= recorded

    def run(
        self,
        modality: str,
        original: Callable,
        inputs: dict[str, Any],
        clock: Clock,
        record_scores: bool = False,
    ) -> Any:
        """The output of `original(**inputs)`, with a `Record` as its entry "foveate".

        The record is an entry and not an attribute, because hooks that move outputs to a device
        rebuild them. A caller that asks for a tuple gets the unchanged output of the model.

        Args:
            modality: "image" or "video".
            original: The model's own `get_*_features`.
            inputs: Arguments of the call by name.
            clock: Measures the time of this call.
            record_scores: Whether to keep the scores by which parts rank patches.
        """
        a, asked = self.anatomy.called(modality, inputs), inputs.get("return_dict")
        original, inputs = self._named(modality, original, inputs)
        inputs = {**inputs, "return_dict": True}
        slots: list[Layout] | None = None
        for part in self.frames:
            if not _keeps_all(part):
                slots, inputs = self._shrunk(part, modality, inputs)
        sizes = _sizes_known(inputs)
        recorder = VisionRecorder(a, modality, self.needs)
        merger = Merger(a, modality, self.mergers) if self.mergers else None
        if merger is not None and record_scores:
            merger.scores = []
        with ExitStack() as stack:
            if a.family.attention is not None:
                stack.enter_context(hooks_outside(a.blocks(modality)))
            if merger is not None:
                stack.enter_context(merger.active())
                recorder.merger = merger
            stack.enter_context(recorder.recording(sizes))
            if slots is not None:
                # For another image size the encoder interpolates its position embeddings.
                tables = (m for m in a.tower(modality).modules() if isinstance(m, nn.Embedding))
                stack.enter_context(loaded(tables))
            output = original(**inputs)
        if not (a.config.return_dict if asked is None else asked):
            return output.to_tuple()
        record = self._record(modality, sizes, output, slots, recorder, merger)
        record.clock = clock
        if slots is not None:
            record.fill(output)
        output["foveate"] = record
        return output

    def _named(
        self, modality: str, original: Callable, inputs: dict[str, Any]
    ) -> tuple[Callable, dict[str, Any]]:
        """The call with its pixels under the name that the family uses now."""
        name, old = self.anatomy.pixels(modality)
        if inputs.get(old) is None:
            return original, inputs
        inputs = {name if n == old else n: x for n, x in inputs.items() if n != name}
        return (
            lambda **kw: original(**{old if n == name else n: x for n, x in kw.items()})
        ), inputs

    def _shrunk(
        self, part: Any, modality: str, inputs: dict[str, Any]
    ) -> tuple[list[Layout], dict[str, Any]]:
        """The layouts of the full-size images, and the call with smaller images."""
        a = self.anatomy
        shapes, slots = None, None
        if type(a.family).shrink is not Family.shrink:
            slots = [layout for layout, _ in a.family.layouts(a.config, modality, inputs, None)]
            shapes = [part.shape(layout.grid) for layout in slots]
        smaller = shapes and a.family.shrink(a.config, modality, inputs, shapes)
        if not smaller:
            raise UnsupportedModel(
                f"The {modality} encoder of {a.family.name} accepts one image size only; use "
                "grid_pool instead of downsample."
            )
        return slots, smaller

    def _record(self, modality, inputs, output, slots, recorder, merger) -> Record:
        a = self.anatomy
        layouts = a.family.layouts(a.config, modality, inputs, output)
        flat = torch.cat([f.reshape(-1, f.shape[-1]) for f in output.pooler_output])
        planes = [
            torch.cat([p.reshape(-1, p.shape[-1]) for p in plane])
            for plane in getattr(output, "deepstack_features", None) or ()
        ]
        clusters = None if merger is None else merger.clusters
        single = all(layout.rows.shape[1] == 1 for layout, _ in layouts)
        if clusters is not None and not single:
            raise UnsupportedCall(
                f"{a.family.name} pools several patches into one visual token, so patches can't be "
                "merged inside the vision encoder; use a method before the LLM, such as VisionZip."
            )
        items, start = [], 0
        for i, (layout, row) in enumerate(layouts):
            own = slice(start, start + layout.n)
            start += layout.n
            items.append(
                Item(
                    layout if slots is None else slots[i],
                    layout,
                    row,
                    flat[own],
                    [p[own] for p in planes],
                    _cluster_of(layout, row, clusters),
                    shares=None if clusters is None else smallest_shares(self.mergers, layout.grid),
                    whole=0 if recorder.views is None else recorder.views[1],
                    left=None if merger is None else merger.left,
                    ranked=[] if merger is None else _ranked(layout, row, merger.scores or []),
                )
            )
        project = None
        if a.family.tokenwise and single:
            project = resolve_path(a.inner, a.family.projector)
        else:
            recorder.rows.pop(ProjectorInput(), None)
            recorder.class_rows = None
        tower = self._tower_runs(modality, inputs, recorder.views, merger)
        rows, made = recorder.rows, self.made
        return Record(modality, items, rows, recorder.class_rows, project, tower, made)

    def _tower_runs(self, modality, inputs, views, merger) -> list[tuple[int, list[int]]]:
        """For each crop or frame its patches and its tokens in each block.

        Empty where the vision encoder has no attention blocks.
        """
        a = self.anatomy
        if a.family.attention is None:
            return []
        blocks, classed = len(a.blocks(modality)), int(a.family.class_token)
        grids = inputs.get(f"{modality}_grid_thw")
        if grids is not None:
            segments = [(t, h * w) for t, h, w in grids.tolist()]
        else:
            segments = [] if views is None else [views]
        runs = []
        for count, patches in segments:
            tokens = [[patches + classed] * blocks] * count
            if merger is not None:
                tokens = merger.lengths(count, patches + classed)
            runs += [(patches, view) for view in tokens]
        return runs


def _sizes_known(inputs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call with small integer tensors, such as grid sizes, on the CPU.

    They are copied before the encoder runs, so that reading them does not wait for it.
    """
    return {
        name: x.cpu() if isinstance(x, Tensor) and x.dim() <= 2 and not x.is_floating_point() else x
        for name, x in inputs.items()
    }


def _keeps_all(part: Part) -> bool:
    keep = getattr(part, "keep", None)
    return isinstance(keep, float) and keep == 1.0


def _cluster_of(layout: Layout, row: int, clusters: Tensor | None) -> Tensor | None:
    """Merged token (N,) of every slot; special slots get numbers of their own."""
    if clusters is None:
        return None
    rows = layout.on(clusters.device).rows[:, 0]
    alone = -1 - torch.arange(len(rows), device=clusters.device)
    return torch.where(rows < 0, alone, clusters[(rows + row).clamp(min=0)])


def _ranked(layout: Layout, row: int, scores: list[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """Scores (N,) of an item's slots from those of all tower rows; NaN for special slots."""
    found = []
    for slug, x in scores:
        rows = layout.on(x.device).rows[:, 0]
        found.append((slug, x[(rows + row).clamp(min=0)].masked_fill(rows < 0, NONE)))
    return found
