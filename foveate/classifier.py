"""Zero-shot classification of a stream of images with CLIP or SigLIP, with token merging.

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

from foveate.engine.tower.dual_encoder import DualEncoder
from foveate.engine.tower.merging import Merger
from foveate.errors import InvalidParameter, UnsupportedCall, UnsupportedModel
from foveate.families.clip import TOWERS
from foveate.flops import VisionShape, vision_flops
from foveate.method import Method, as_method
from foveate.parts import EncodersPart, Widths
from foveate.systems import WHERE

TEMPLATES = ("a photo of a {}.",)
# Logit corrections are defined for CLIP. They are scaled for models with another temperature.
CLIP_SCALE = 100.0


@dataclass(frozen=True)
class Prediction:
    """The classification of one image.

    Attributes:
        label: The class.
        index: Index of the class.
        logits: (K,) logits after the correction of the method.
        plain: (K,) logits before it.
        tokens: Tokens that entered each block of the vision encoder, and tokens that left the last.
        flops: FLOPs of the vision encoder, with the selection overhead.
        flops_full: FLOPs of the vision encoder without a method.
    """

    label: str
    index: int
    logits: Tensor
    plain: Tensor
    tokens: tuple[int, ...]
    flops: int
    flops_full: int


class ZeroShot:
    """A zero-shot classifier and the state of its stream.

    The model itself is unchanged between two calls.

    Attributes:
        adapter: State of the method, or None.
        prototypes: (K, D) unit vectors of the classes.
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
                f"classes={self.classes!r} is not valid; use at least two different classes."
            )
        if not templates or not all("{}" in t for t in templates):
            raise InvalidParameter(
                f"templates={templates!r} is not valid; use one or more texts with {{}} for the "
                "class."
            )
        self.adapter: Any = None
        self.parts: list[EncodersPart] = []
        for part in () if method is None else method.parts():
            if not isinstance(part, EncodersPart):
                raise UnsupportedCall(
                    f"{method!r} acts {WHERE[part.stage]}, but a classifier has a vision encoder "
                    "only; use a method inside the vision encoder, such as TCA or ToMe."
                )
            made = getattr(part, "adapter", None)
            if made is not None:
                self.adapter = part = made(generator)
            self.parts.append(part)
        self._shape: Any = VisionShape.from_config(model.config)
        self.prototypes = self._prototypes(templates)

    @torch.no_grad()
    def _prototypes(self, templates: Sequence[str]) -> Tensor:
        """Unit vectors (K, D) of the classes, averaged over templates."""
        texts = [t.format(name) for name in self.classes for t in templates]
        # SigLIP was trained with texts padded to full length.
        padding = True if self.dual.class_token else "max_length"
        inputs = self.processor(text=texts, padding=padding, return_tensors="pt")
        vectors = self.model.get_text_features(**inputs.to(self.model.device)).pooler_output
        vectors = normalize(vectors, dim=-1).unflatten(0, (len(self.classes), -1)).mean(1)
        return normalize(vectors, dim=-1)

    @torch.no_grad()
    def __call__(self, image: Any) -> Prediction:
        """Classify one image: anything that the processor reads, or `pixel_values` (1, 3, H, W)."""
        pixels = image
        if not isinstance(image, Tensor):
            pixels = self.processor(images=image, return_tensors="pt")["pixel_values"]
        if pixels.dim() != 4 or len(pixels) != 1:
            raise UnsupportedCall(
                f"The classifier takes one image per call, not a batch {tuple(pixels.shape)}; call "
                "it once for each image."
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
        """FLOPs of the encoder with and without the method; an anchor counts as a token."""
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
        """State of the stream as CPU tensors; empty for a method without state."""
        return {} if self.adapter is None else self.adapter.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict` of such a stream."""
        if self.adapter is not None:
            self.adapter.load_state_dict(state)
        elif state:
            raise InvalidParameter(
                f"{self.method!r} keeps no state, so it can't load one; use TCA."
            )


def zero_shot(
    model: Any,
    processor: Any,
    classes: Sequence[str],
    method: Method | None = None,
    *,
    templates: Sequence[str] = TEMPLATES,
    generator: torch.Generator | None = None,
) -> ZeroShot:
    """A CLIP or SigLIP model as a classifier of a stream of images.

    Args:
        model: A CLIPModel or SiglipModel.
        processor: Its processor.
        classes: Names of at least two classes.
        method: A method inside the vision encoder. None: the unchanged model.
        templates: Texts with {} for the class. Their embeddings are averaged.
        generator: Draws the first centres of a method that needs them.
    """
    return ZeroShot(model, processor, classes, method, templates, generator)


def dual_encoder(model: Any) -> DualEncoder:
    """The vision encoder of a CLIP or SigLIP model; raises `UnsupportedModel` for others."""
    vision = getattr(getattr(model, "config", None), "vision_config", None)
    kind = getattr(vision, "model_type", None)
    if kind not in TOWERS or not hasattr(model, "get_text_features"):
        raise UnsupportedModel(
            f"{type(model).__name__} is not a CLIP or SigLIP model; pass a CLIPModel or a "
            "SiglipModel."
        )
    return DualEncoder(model, model.config.model_type, TOWERS[kind])
