"""Finds the modules of a transformers vision-language model that the engine hooks."""

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
    """The modules of a vision-language model.

    Attributes:
        outer: The model with `generate`.
        inner: The model that puts visual tokens into the prompt.
        text: The decoder.
        family: The model family.
        feature_layers: `vision_feature_layer` of one call. None: the value in the config.
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
        """Modalities that the model encodes: "image", "video" or both."""
        return [m for m in ("image", "video") if hasattr(self.inner, f"get_{m}_features")]

    def packs(self, positions: str) -> bool:
        """Whether kept tokens get new position ids in this model, for a value of `positions`."""
        three_rows = hasattr(self.inner, "compute_3d_position_ids")
        return positions == "packed" or positions == "native" and not three_rows

    def placeholder(self, modality: str) -> int | None:
        """Token id of the placeholder of a modality."""
        return getattr(self.config, self.family.placeholders[modality], None)

    def pixels(self, modality: str) -> tuple[str, str]:
        """Argument names for the pixels of a modality: the current one and an older one."""
        name = self.family.pixels[modality]
        return name, f"{name}_images"

    def tower(self, modality: str) -> nn.Module:
        """The vision encoder of a modality."""
        towers = self.family.towers
        return resolve_path(self.inner, towers.get(modality, towers["image"]))

    def blocks(self, modality: str) -> nn.ModuleList:
        """The blocks of the vision encoder."""
        return resolve_path(self.tower(modality), self.family.blocks)

    def vision_block(self, modality: str, layer: int | None) -> tuple[int, nn.Module]:
        """Index and module of a block of the vision encoder.

        `layer` None is the block that the projector reads, the deepest one if it reads several.
        """
        if self.family.attention is None:
            raise UnsupportedModel(
                f"The vision encoder of {self.family.name} has no attention; use a method that "
                "reads features only, such as DivPrune."
            )
        blocks = self.blocks(modality)
        layer = max(self.feature_blocks(modality)) if layer is None else layer
        if not -len(blocks) <= layer < len(blocks):
            raise UnsupportedModel(
                f"layer={layer} is out of range: the vision encoder has {len(blocks)} blocks "
                f"(0-{len(blocks) - 1}, or {-len(blocks)} to -1)."
            )
        return layer % len(blocks), blocks[layer % len(blocks)]

    def feature_blocks(self, modality: str) -> list[int]:
        """Blocks whose output the projector reads, in its order."""
        blocks = len(self.blocks(modality))
        found = self.family.feature_blocks(self.config, blocks, self.feature_layers)
        if min(found) < 0:
            raise UnsupportedCall(
                "vision_feature_layer selects the input of the vision encoder, before its first "
                "block; set it to a later layer, such as -2."
            )
        return found

    def called(self, modality: str, inputs: Mapping[str, Any]) -> Anatomy:
        """This model as one `get_*_features` call uses it.

        Args:
            modality: "image" or "video".
            inputs: Arguments of the call by name.
        """
        layers = inputs.get("vision_feature_layer")
        if layers is None or self.family.attention is None:
            return self
        several = [layers] if isinstance(layers, int) else layers
        whole = isinstance(several, list | tuple) and all(isinstance(n, int) for n in several)
        count = len(self.blocks(modality))
        if not whole or not several or not all(-count - 1 <= n <= count for n in several):
            raise UnsupportedCall(
                f"vision_feature_layer={shown(layers)} is out of range: the vision encoder has "
                f"{count} blocks; use a whole number from {-count - 1} to {count}, or a list of "
                "them."
            )
        return replace(self, feature_layers=layers)

    def bind(self, args: tuple, kwargs: dict) -> dict[str, Any]:
        """Arguments of the inner model's forward, by name."""
        if not args:
            return dict(kwargs)
        names = inspect.signature(self.inner.forward).parameters
        return {**dict(zip(names, args, strict=False)), **kwargs}


def anatomy(model: nn.Module) -> Anatomy:
    """The modules of `model`, also inside wrappers such as those of peft.

    Raises `UnsupportedModel` where it is not a vision-language model of transformers.
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedModel(
            f"{shown(model)} is not a torch module; pass a transformers "
            "...ForConditionalGeneration model."
        )
    outer = model
    # A model wrapped by torch.compile has all attributes of the original, so unwrap it first.
    while isinstance(outer, OptimizedModule):
        outer = outer._orig_mod
    while not hasattr(outer, "get_decoder") or not hasattr(outer, "prepare_inputs_for_generation"):
        below = [
            getattr(outer, name, None) for name in ("module", "_orig_mod", "base_model", "model")
        ]
        below = [b for b in below if isinstance(b, nn.Module) and b is not outer]
        if not below:
            raise UnsupportedModel(
                f"{type(model).__name__} is not a transformers model with generate(); pass the "
                "...ForConditionalGeneration model itself."
            )
        outer = below[0]
    if hasattr(outer, "get_base_model"):
        outer = outer.get_base_model()
    inner = getattr(outer, "model", outer)
    if not hasattr(inner, "get_image_features") and not hasattr(inner, "get_video_features"):
        raise UnsupportedModel(
            f"{type(outer).__name__} has no vision encoder, so there are no visual tokens to "
            "reduce; pass a vision-language model."
        )
    family = family_of(inner.config)
    for part in (inner, outer):
        _check_seam(type(part))
    return Anatomy(outer, inner, outer.get_decoder(), family)


def _check_seam(cls: type) -> None:
    """Refuse a model whose forward ignores `mm_encoder_outputs`."""
    for base in cls.__mro__:
        if "forward" not in vars(base):
            continue
        named = inspect.signature(base.forward).parameters
        if _SEAM in named:
            return
        if any(name.startswith("pixel_values") for name in named):
            break
        # A forward with only *args and **kwargs passes everything to the method it overrides.
    raise UnsupportedModel(
        f"{cls.__name__}.forward has no argument {_SEAM}, which passes reduced visual tokens to "
        f"the model; use transformers 5.18 or newer (this is {transformers.__version__}), and add "
        "the argument to custom models as the models of transformers have it."
    )
