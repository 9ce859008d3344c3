"""What the engine must know of a model family, as data: where things are, how its tokens lie."""

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
    """One model family. Subclasses override what differs from a SigLIP tower with an MLP behind it.

    name: `config.model_type`. towers, pixels, placeholders: per modality the attribute path of the
    vision tower on the inner model, the name of the pixel argument, the config field that holds the
    placeholder id; `towers` names the modalities that exist. blocks, attention: paths below the
    tower and below a block (attention None where the tower has none; then blocks mean nothing).
    projector: path on the inner model. key: name of the linear layer that makes a block's keys,
    "qkv" where fused. class_token: row 0 of every view is a trained class token.
    distill_token: row 1 is a distillation token.
    projects_class: class rows of video frames go through the projector and become tokens.
    tokenwise: the projector treats every tower row by itself. merges: tower blocks are plain
    pre-norm blocks (layer_norm1, self_attn, layer_norm2, mlp), so that rows may be merged between
    them. The last two hold only for items whose layout gives every token one tower row, that is
    `layout.rows.shape[1] == 1`: some families pool videos or very large pictures.
    position_offset: first 1-D position. type_pad: token type of padding.
    prefix: the whole prompt is bidirectional.
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
        """config: the inner model's. Raise `UnsupportedModel` for variants that can't be served."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            _families[cls.name] = cls

    def feature_blocks(
        self, config: Any, blocks: int, asked: int | Sequence[int] | None = None
    ) -> list[int]:
        """0-based tower blocks whose output the projector reads, in its order.

        asked: the call's `vision_feature_layer`, None for the config's. -1 is what enters block 0.
        """
        layers = getattr(config, "vision_feature_layer", -1) if asked is None else asked
        layers = [layers] if isinstance(layers, int) else layers
        return [(layer if layer >= 0 else blocks + 1 + layer) - 1 for layer in layers]

    def layouts(
        self, config: Any, modality: str, inputs: Mapping[str, Any], output: Any
    ) -> list[tuple[Layout, int]]:
        """Per visual item of a `get_*_features` call its layout and its first tower row.

        Items stand in the order of their features; equal items share one layout object.
        config: the inner model's. inputs: the call's arguments by name. output: what it returned;
        its `pooler_output`, flattened, holds the tokens of all items one after another. Tower rows
        are counted over the whole call: class rows left out, views one after another, in natural
        order (see `tower_order`). Families that can `shrink` answer before the call too, when
        output is None.
        """
        raise NotImplementedError

    def tower_order(self, config: Any, modality: str, inputs: Mapping[str, Any]) -> Tensor | None:
        """Permutation p (R,), `natural = computed[p]`, where the tower runs its rows permuted."""
        return None

    def shrink(
        self,
        config: Any,
        modality: str,
        inputs: Mapping[str, Any],
        shapes: Sequence[tuple[int, int]],
    ) -> dict[str, Any] | None:
        """The call's arguments with smaller pictures, or None where the tower takes one size only.

        shapes: (rows, columns) of tokens that each item shall make. Ask `layouts` again on what
        this returns.
        """
        return None

    def replaced(self, inner: Any) -> dict[str, Any]:
        """Methods of the inner model, by name, that can't place reduced features themselves, and
        what answers in their place while a method is attached."""
        return {}

    def check(self, config: Any, inputs: Mapping[str, Any]) -> None:
        """Raise `UnsupportedCall` for a forward call that can't be reduced exactly."""


def resolve_path(root: nn.Module, path: str) -> Any:
    """The attribute at a dotted path."""
    for name in path.split(".") if path else ():
        root = getattr(root, name)
    return root


@lru_cache(maxsize=512)
def raster(t: int, h: int, w: int) -> Layout:
    """`t` views of h x w tokens in raster order, one tower row each; a view is a crop or frame."""
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
    """All known families by `config.model_type`."""
    _load()
    return dict(sorted(_families.items()))


def family_of(config: Any) -> Family:
    """The family of a model's config; `UnsupportedModel` lists the known ones."""
    known = families()
    if config.model_type not in known:
        raise UnsupportedModel(
            f"Models of type {config.model_type!r} are not supported; supported are "
            f"{', '.join(known)}. A new family is one file, see docs/add-a-family.md."
        )
    return known[config.model_type](config)
