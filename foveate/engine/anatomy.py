"""The modules of a transformers vision-language model that the engine takes hold of."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import transformers
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule

from foveate.errors import UnsupportedCall, UnsupportedModel, shown
from foveate.families.base import Family, family_of, resolve_path

_SEAM = "mm_encoder_outputs"


@dataclass(frozen=True)
class Anatomy:
    """outer: the model that owns `generate`. inner: the one that splices. text: the decoder.

    feature_layers: the `vision_feature_layer` of one call, None where it is the config's.
    """

    outer: Any
    inner: Any
    text: Any
    family: Family
    feature_layers: int | Sequence[int] | None = None

    @property
    def config(self) -> Any:
        """The inner model's config."""
        return self.inner.config

    @property
    def layers(self) -> Any:
        """The decoder layers."""
        return self.text.layers

    @property
    def modalities(self) -> list[str]:
        """Modalities that the model can encode."""
        return [m for m in ("image", "video") if hasattr(self.inner, f"get_{m}_features")]

    def packs(self, positions: str) -> bool:
        """Whether a rule of positions renumbers what is left in this model."""
        three_rows = hasattr(self.inner, "compute_3d_position_ids")
        return positions == "packed" or positions == "native" and not three_rows

    def placeholder(self, modality: str) -> int | None:
        """Token id that marks where visual tokens of a modality go."""
        return getattr(self.config, self.family.placeholders[modality], None)

    def pixels(self, modality: str) -> tuple[str, str]:
        """Names under which pixels of a modality arrive: the family's and an older one."""
        name = self.family.pixels[modality]
        return name, f"{name}_images"

    def tower(self, modality: str) -> nn.Module:
        """The vision tower of a modality."""
        towers = self.family.towers
        return resolve_path(self.inner, towers.get(modality, towers["image"]))

    def blocks(self, modality: str) -> nn.ModuleList:
        """The blocks of the vision tower."""
        return resolve_path(self.tower(modality), self.family.blocks)

    def vision_block(self, modality: str, layer: int | None) -> tuple[int, nn.Module]:
        """Index and module of a tower block; `layer` None is the one that the projector reads.

        Of several that it reads it is the deepest.
        """
        if self.family.attention is None:
            raise UnsupportedModel(
                f"The vision tower of {self.family.name} has no attention to read; use a method "
                "that reads features only, such as DivPrune."
            )
        blocks = self.blocks(modality)
        layer = max(self.feature_blocks(modality)) if layer is None else layer
        if not -len(blocks) <= layer < len(blocks):
            raise UnsupportedModel(
                f"Vision layer {layer} does not exist in a tower of {len(blocks)} blocks."
            )
        return layer % len(blocks), blocks[layer % len(blocks)]

    def feature_blocks(self, modality: str) -> list[int]:
        """Tower blocks whose output the projector reads, in its order."""
        blocks = len(self.blocks(modality))
        found = self.family.feature_blocks(self.config, blocks, self.feature_layers)
        if min(found) < 0:
            raise UnsupportedCall(
                "The projector reads what enters the vision tower, behind no block of it; "
                "set vision_feature_layer to a later layer, such as -2."
            )
        return found

    def called(self, modality: str, inputs: Mapping[str, Any]) -> Anatomy:
        """This model as one `get_*_features` call uses it.

        inputs: the call's arguments by name.
        """
        layers = inputs.get("vision_feature_layer")
        if layers is None or self.family.attention is None:
            return self
        several = [layers] if isinstance(layers, int) else layers
        whole = isinstance(several, list | tuple) and all(isinstance(n, int) for n in several)
        count = len(self.blocks(modality))
        if not whole or not several or not all(-count - 1 <= n <= count for n in several):
            raise UnsupportedCall(
                f"vision_feature_layer={shown(layers)} names no layer of a vision tower of {count} "
                f"blocks; use a whole number from {-count - 1} to {count}, or a list of them."
            )
        return replace(self, feature_layers=layers)

    def bind(self, args: tuple, kwargs: dict) -> dict[str, Any]:
        """Arguments of the inner model's forward by name."""
        if not args:
            return dict(kwargs)
        names = inspect.signature(self.inner.forward).parameters
        return {**dict(zip(names, args, strict=False)), **kwargs}


def anatomy(model: nn.Module) -> Anatomy:
    """Find the parts of `model`, inside wrappers such as peft's too; else `UnsupportedModel`."""
    if not isinstance(model, nn.Module):
        raise UnsupportedModel(
            f"{shown(model)} is not a model; pass a transformers ...ForConditionalGeneration model."
        )
    outer = model
    # What torch.compile wraps shows all attributes of the model as its own.
    while isinstance(outer, OptimizedModule):
        outer = outer._orig_mod
    while not hasattr(outer, "get_decoder") or not hasattr(outer, "prepare_inputs_for_generation"):
        below = [
            getattr(outer, name, None) for name in ("module", "_orig_mod", "base_model", "model")
        ]
        below = [b for b in below if isinstance(b, nn.Module) and b is not outer]
        if not below:
            raise UnsupportedModel(
                f"{type(model).__name__} is no transformers model that generates; pass the "
                "...ForConditionalGeneration model itself."
            )
        outer = below[0]
    if hasattr(outer, "get_base_model"):
        outer = outer.get_base_model()
    inner = getattr(outer, "model", outer)
    if not hasattr(inner, "get_image_features") and not hasattr(inner, "get_video_features"):
        raise UnsupportedModel(
            f"{type(outer).__name__} has no vision tower, so there are no visual tokens to reduce; "
            "pass a vision-language model."
        )
    family = family_of(inner.config)
    for part in (inner, outer):
        _check_seam(type(part))
    return Anatomy(outer, inner, outer.get_decoder(), family)


def _check_seam(cls: type) -> None:
    """Refuse a model that would swallow reduced visual tokens among its keyword arguments."""
    for base in cls.__mro__:
        if "forward" not in vars(base):
            continue
        named = inspect.signature(base.forward).parameters
        if _SEAM in named:
            return
        if any(name.startswith("pixel_values") for name in named):
            break
        # A forward of *args and **kwargs hands everything to the one it overrides.
    raise UnsupportedModel(
        f"{cls.__name__}.forward takes no {_SEAM}, through which reduced visual tokens enter a "
        f"model; this is transformers {transformers.__version__}, which has it from 5.18 on, and "
        "code of your own must name and use it as transformers' models do."
    )
