"""A cache of encoded images, shared by settings that run the vision encoder in the same way."""

from __future__ import annotations

import inspect
from typing import Any

from foveate.benchmarks.task_items import Batch
from foveate.engine.anatomy import anatomy
from foveate.method import Method, in_road_order


class EncodedImages:
    """The outputs of the vision encoder per batch, kept while methods run it in the same way.

    A method before the LLM or inside it does not change the encoder's outputs. The signals that its
    `needs` name are recorded while the encoder runs, so that methods with the same needs share
    outputs.
    """

    def __init__(self, model: Any):
        self._anatomy = anatomy(model)
        self._key: tuple | None = None
        self._kept: dict[int, tuple[Batch, dict[str, Any]]] = {}

    def prepare(self, method: Method) -> None:
        """Empty the cache if `method` runs the encoder in another way than the method before it."""
        parts = in_road_order(method.parts())
        before = tuple(p for p in parts if p.stage in ("frames", "encoders"))
        needs = tuple(n for p in parts if p.stage == "tokens" for n in p.needs)
        if (before, needs) != self._key:
            self._key = before, needs
            self._kept.clear()

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """The batch's inputs with encoder outputs in place of pixels; a method must be attached."""
        if id(batch) not in self._kept:
            self._kept[id(batch)] = batch, self._encoded(batch.inputs)
        outputs = dict(self._kept[id(batch)][1])
        pixels = set(self._anatomy.family.pixels.values())
        rest = {name: value for name, value in batch.inputs.items() if name not in pixels}
        return {**rest, "mm_encoder_outputs": outputs}

    def _encoded(self, inputs: dict[str, Any]) -> dict[str, Any]:
        made = {}
        for modality in self._anatomy.modalities:
            if self._anatomy.family.pixels[modality] in inputs:
                encode = getattr(self._anatomy.inner, f"get_{modality}_features")
                names = inspect.signature(encode).parameters
                given = {name: inputs[name] for name in names if name in inputs}
                made[modality] = encode(**given, return_dict=True)
        return made
