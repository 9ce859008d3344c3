"""`Family`: what the engine must know of a model family, as far as possible as data."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from foveate.errors import UnsupportedModel
from foveate.tokens import Layout

_families: dict[str, type[Family]] = {}


class Family:
    """One model family. The defaults describe a SigLIP encoder followed by an MLP projector.

    Attributes:
        name: `config.model_type`.
        towers: For each modality, the attribute path of the vision encoder on the inner model. Its
            keys are the modalities of the family.
        pixels: For each modality, the name of the pixel argument.
        placeholders: For each modality, the config field with the placeholder token id.
        blocks: Attribute path of the blocks below the vision encoder.
        attention: Attribute path of the attention below a block. None for an encoder without
            attention; `blocks` is not used then.
        key: Name of the linear layer that computes a block's keys, "qkv" where it is fused.
        projector: Attribute path of the projector on the inner model.
        class_token: Token 0 of every view is a trained class token.
        distill_token: Token 1 is a distillation token.
        projects_class: The class tokens of video frames pass through the projector and become
            tokens.
        tokenwise: The projector maps every output row of the encoder by itself. Used only for items
            with one row per token (`layout.rows.shape[1] == 1`), because some families pool videos
            or very large images.
        merges: The encoder's blocks are plain pre-norm blocks (layer_norm1, self_attn, layer_norm2,
            mlp), so tokens can be merged between them. Used only for items with one row per token.
        position_offset: The first position id of a text-only prompt.
        type_pad: Token type id at padding.
        prefix: The whole prompt uses bidirectional attention.
    """

    name: ClassVar[str]
    towers: ClassVar[Mapping[str, str]] = {"image": "vision_tower"}
    pixels: ClassVar[Mapping[str, str]] = {
        "image": "pixel_values",
        "video": "pixel_values_videos",
    }
    placeholders: ClassVar[Mapping[str, str]] = {
        "image": "image_token_id",
        "video": "video_token_id",
    }
    blocks: ClassVar[str] = "encoder.layers"
    attention: ClassVar[str | None] = "self_attn"
    key: ClassVar[str] = "k_proj"
    projector: ClassVar[str] = "multi_modal_projector"
    class_token: bool = False
    distill_token: ClassVar[bool] = False
    projects_class: ClassVar[bool] = False
    tokenwise: ClassVar[bool] = False
    merges: ClassVar[bool] = False
    position_offset: ClassVar[int] = 0
    type_pad: ClassVar[int] = 0
    prefix: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        """Raise `UnsupportedModel` for variants of the family that are not supported.

        Args:
            config: Config of the inner model.
        """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            _families[cls.name] = cls

    def feature_blocks(
        self, config: Any, blocks: int, asked: int | Sequence[int] | None = None
    ) -> list[int]:
        """0-based encoder blocks whose output the projector reads, in its order.

        Args:
            config: Config of the inner model.
            blocks: Number of blocks.
            asked: `vision_feature_layer` of the call, None for that of the config.

        Returns:
            Block indices. -1 stands for the input of block 0.
        """
        layers = getattr(config, "vision_feature_layer", -1) if asked is None else asked
        layers = [layers] if isinstance(layers, int) else layers
        return [(layer if layer >= 0 else blocks + 1 + layer) - 1 for layer in layers]

    def layouts(
        self, config: Any, modality: str, inputs: Mapping[str, Any], output: Any
    ) -> list[tuple[Layout, int]]:
        """Layout and first encoder row of each item of a `get_*_features` call.

        Items are in the order of their features. Equal items share one layout object.

        Args:
            config: Config of the inner model.
            modality: "image" or "video".
            inputs: Arguments of the call by name.
            output: What the call returned. Its flattened `pooler_output` has the tokens of all
                items. None before the call, which only families with `shrink` need to support.

        Returns:
            (layout, row) of each item. Encoder rows count over the whole call, without class
                tokens, one view after another, in the order of the image (see `tower_order`).
        """
        raise NotImplementedError

    def tower_order(self, config: Any, modality: str, inputs: Mapping[str, Any]) -> Tensor | None:
        """Permutation p (R,), `image_order = computed[p]`, for encoders that reorder their rows."""
        return None

    def shrink(
        self,
        config: Any,
        modality: str,
        inputs: Mapping[str, Any],
        shapes: Sequence[tuple[int, int]],
    ) -> dict[str, Any] | None:
        """The arguments of a call with smaller images; None for encoders with a fixed image size.

        Call `layouts` again with the result.

        Args:
            config: Config of the inner model.
            modality: "image" or "video".
            inputs: Arguments of the call by name.
            shapes: (rows, columns) of tokens to encode, for each item.
        """
        return None

    def replaced(self, inner: Any) -> dict[str, Any]:
        """Methods of the inner model to replace while a method is attached, by name.

        For methods that can't place reduced features.
        """
        return {}

    def check(self, config: Any, inputs: Mapping[str, Any]) -> None:
        """Raise `UnsupportedCall` for a forward call whose reduction would not be exact."""


def resolve_path(root: nn.Module, path: str) -> Any:
    """The attribute at a dotted path."""
    for name in path.split(".") if path else ():
        root = getattr(root, name)
    return root


@lru_cache(maxsize=512)
def raster(t: int, h: int, w: int) -> Layout:
    """`t` views of h x w tokens in raster order, one encoder row each."""
    steps = torch.arange(t * h * w)
    view = steps // (h * w)
    return Layout(
        position=torch.stack([view, steps // w % h, steps % w], 1),
        view=view,
        special=torch.zeros(t * h * w, dtype=torch.bool),
        rows=steps[:, None],
    )


@cache
def _load() -> None:
    import foveate.families as package

    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def families() -> dict[str, type[Family]]:
    """All families by `config.model_type`."""
    _load()
    return dict(sorted(_families.items()))


def family_of(config: Any) -> Family:
    """The family of a model's config; raises `UnsupportedModel` for others."""
    known = families()
    if config.model_type not in known:
        raise UnsupportedModel(
            f"Models of type {config.model_type!r} are not supported; use one of "
            f"{', '.join(known)}, or add the family as described in docs/add-a-family.md."
        )
    return known[config.model_type](config)
