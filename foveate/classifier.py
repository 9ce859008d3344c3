"""Zero-shot classification of a stream of pictures with CLIP or SigLIP, condensed and adapted.

stream = foveate.zero_shot(model, processor, ["ring", "star"], foveate.TCA(delta=0.1))
for image in images:
    print(stream(image).label)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from foveate.engine.tower.clip import dual_encoder
from foveate.engine.tower.merging import Merger
from foveate.errors import InvalidParameter, UnsupportedCall
from foveate.flops import VisionShape, vision_flops
from foveate.method import Method, as_method
from foveate.parts import EncodersPart, Widths

TEMPLATES = ("a photo of a {}.",)
# Corrections are made for logits of CLIP; a model with another temperature gets them in proportion.
CLIP_SCALE = 100.0


@dataclass(frozen=True)
class Prediction:
    """What was said of one picture.

    label: the class, `index` its number. logits (K,): corrected ones. plain (K,): before the
    correction. tokens: how many entered each block of the vision tower, and left the last. flops:
    of the tower, choosing included; flops_full: of the bare tower.
    """

    label: str
    index: int
    logits: Tensor
    plain: Tensor
    tokens: tuple[int, ...]
    flops: int
    flops_full: int


class ZeroShot:
    """A model that names one picture after the other, and the state of that stream.

    adapter: the state of the method, None where it has none. Nothing is left on the model between
    two calls.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        classes: Sequence[str],
        method: Method | None = None,
        templates: Sequence[str] = TEMPLATES,
        generator: torch.Generator | None = None,
    ):
        method = None if method is None else as_method(method)
        self.dual = dual_encoder(model)
        self.model, self.processor, self.method = model, processor, method
        self.classes = list(classes)
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise InvalidParameter(
                f"classes={self.classes!r} is no choice; name at least two different ones."
            )
        if not templates or not all("{}" in t for t in templates):
            raise InvalidParameter(
                f"templates={templates!r} need one text or more with {{}} for the class."
            )
        self.adapter: Any = None
        self.parts: list[EncodersPart] = []
        for part in () if method is None else method.parts():
            if not isinstance(part, EncodersPart):
                raise UnsupportedCall(
                    f"{method!r} acts at stage {part.stage!r}; a classifier has a vision tower "
                    "only, so use a method inside it, such as TCA or ToMe."
                )
            made = getattr(part, "adapter", None)
            if made is not None:
                self.adapter = part = made(generator)
            self.parts.append(part)
        self._shape: Any = VisionShape.from_config(model.config)
        self.prototypes = self._prototypes(templates)

    @torch.no_grad()
    def _prototypes(self, templates: Sequence[str]) -> Tensor:
        """Unit vectors (K, D) of the classes, means over templates."""
        texts = [t.format(name) for name in self.classes for t in templates]
        # SigLIP was trained with texts of full length.
        padding = True if self.dual.class_token else "max_length"
        inputs = self.processor(text=texts, padding=padding, return_tensors="pt")
        vectors = self.model.get_text_features(**inputs.to(self.model.device)).pooler_output
        vectors = normalize(vectors, dim=-1).unflatten(0, (len(self.classes), -1)).mean(1)
        return normalize(vectors, dim=-1)

    @torch.no_grad()
    def __call__(self, image: Any) -> Prediction:
        """Name a picture: anything that the processor reads, or its `pixel_values` (1, 3, H, W)."""
        pixels = image
        if not isinstance(image, Tensor):
            pixels = self.processor(images=image, return_tensors="pt")["pixel_values"]
        if pixels.dim() != 4 or len(pixels) != 1:
            raise UnsupportedCall(
                f"A stream reads one picture at a time, not {tuple(pixels.shape)}; call it once "
                "for each."
            )
        merger = Merger(self.dual, "image", self.parts) if self.parts else None
        states: list[Tensor] = []
        lengths: list[int] = []
        with ExitStack() as stack:
            if merger is not None:
                stack.enter_context(merger.active())
            for block in self.dual.blocks("image"):
                hook = block.register_forward_hook(self._watch(states, lengths), with_kwargs=True)
                stack.callback(hook.remove)
            pixels = pixels.to(self.model.device, self.model.dtype)
            seen = self.model.get_image_features(pixel_values=pixels)
        feature = normalize(seen.pooler_output, dim=-1)[0]
        scale = self.model.logit_scale.float().exp()
        plain = (feature @ self.prototypes.T).float() * scale
        if hasattr(self.model, "logit_bias"):
            plain = plain + self.model.logit_bias.float()
        flops, full = self._flops(lengths)
        logits = plain
        if self.adapter is not None:
            found = self.adapter.update(plain, feature, torch.stack(states))
            logits = plain + found * (scale / CLIP_SCALE)
        index = int(logits.argmax())
        return Prediction(self.classes[index], index, logits, plain, tuple(lengths), flops, full)

    def _watch(self, states: list[Tensor], lengths: list[int]):
        def watch(_: Any, args: tuple, kwargs: dict, out: Tensor) -> None:
            entered = args[0] if args else kwargs["hidden_states"]
            lengths[len(states) :] = [entered.shape[1], out.shape[1]]
            states.append(out[0, 0] if self.dual.class_token else out[0].mean(0))

        return watch

    def _flops(self, lengths: list[int]) -> tuple[int, int]:
        """FLOPs of the tower as it ran and of the bare one; an anchor counts as a token."""
        shape = self._shape
        *lengths, left = lengths
        patches = lengths[0] - self.dual.class_token
        full = vision_flops(shape, lengths[0], patches=patches)
        blocks, heads = len(lengths), self.model.config.vision_config.num_attention_heads
        widths = Widths(shape.hidden, shape.hidden // heads, blocks, 0, 0)
        choosing = sum(p.cost(patches, left, widths) for p in self.parts)
        beside = [sum(p.vectors(i, blocks) for p in self.parts) for i in range(blocks)]
        ran = [n + more for n, more in zip(lengths, beside, strict=True)]
        return vision_flops(shape, ran, patches=patches) + choosing, full

    def state_dict(self) -> dict[str, Tensor]:
        """What the stream has learnt, as tensors on the CPU; empty for a method without state."""
        return {} if self.adapter is None else self.adapter.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` of such a stream gave."""
        if self.adapter is not None:
            self.adapter.load_state_dict(state)
        elif state:
            raise InvalidParameter(f"{self.method!r} has no state to load; use TCA.")


def zero_shot(
    model: Any,
    processor: Any,
    classes: Sequence[str],
    method: Method | None = None,
    *,
    templates: Sequence[str] = TEMPLATES,
    generator: torch.Generator | None = None,
) -> ZeroShot:
    """A CLIP or SigLIP model as a classifier of a stream of single pictures.

    method: one that acts inside the vision tower; None is the bare model. templates: texts with {}
    for the class, whose vectors are averaged. generator: draws first centres, where a method does.
    """
    return ZeroShot(model, processor, classes, method, templates, generator)
