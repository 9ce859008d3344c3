"""Initialise a larger embedded model from the weights of a smaller one.

Additional blocks and layers start as identities (zero output projections), and the position
embeddings are interpolated to the larger grid. The larger model therefore starts with the accuracy
of the smaller one.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlavaConfig, LlavaForConditionalGeneration

from .architecture import new_model, position_codes


@torch.no_grad()
def grow(
    small: LlavaForConditionalGeneration, config: LlavaConfig, seed: int
) -> LlavaForConditionalGeneration:
    """A model of the larger ``config`` (same widths) initialised with the weights of ``small``."""
    model = new_model(config, seed)
    own, old = model.model, small.model
    own.multi_modal_projector.load_state_dict(old.multi_modal_projector.state_dict())
    tower, former = own.vision_tower, old.vision_tower
    # Features are read before the last block, which serves only the class token.
    blocks = len(former.encoder.layers)
    order = _spread(range(blocks - 1), len(tower.encoder.layers) - 1, spare_end=True) + [blocks - 1]
    _fill(tower.encoder.layers, former.encoder.layers, order)
    for name in ("pre_layrnorm", "post_layernorm"):
        getattr(tower, name).load_state_dict(getattr(former, name).state_dict())
    tower.embeddings.class_embedding.copy_(former.embeddings.class_embedding)
    tower.embeddings.patch_embedding.load_state_dict(former.embeddings.patch_embedding.state_dict())
    _stretch(tower, former)
    text, spoken = own.language_model, old.language_model
    text.embed_tokens.load_state_dict(spoken.embed_tokens.state_dict())
    text.norm.load_state_dict(spoken.norm.state_dict())
    _fill(text.layers, spoken.layers, _spread(range(len(spoken.layers)), len(text.layers)))
    model.tie_weights()
    return model


def _spread(old: range, count: int, spare_end: bool = False) -> list[int | None]:
    """For each of ``count`` layers the ``old`` layer whose weights it takes, None for a new one.

    New layers alternate with the last old ones, or all follow them (``spare_end``).
    """
    extra = count - len(old)
    if spare_end:
        return [*old, *[None] * extra]
    order: list[int | None] = list(old)
    for k in range(extra):
        order.insert(len(old) - 1 - 2 * k, None)
    return order


def _fill(layers: nn.ModuleList, former: nn.ModuleList, order: list[int | None]) -> None:
    for layer, source in zip(layers, order, strict=True):
        if source is not None:
            layer.load_state_dict(former[source].state_dict())
            continue
        for name, weight in layer.named_parameters():
            if any(part in name for part in ("o_proj", "out_proj", "down_proj", "fc2")):
                weight.zero_()


def _stretch(tower, former) -> None:
    """Extend the position codes to the larger grid; interpolate the learned rest."""
    small = former.embeddings.position_embedding.weight.clone()
    known, codes = position_codes(former), position_codes(tower)
    width = codes.shape[1]
    side, grid = int(len(known) ** 0.5), int(len(codes) ** 0.5)
    learnt = small[1:].clone()
    learnt[:, :width] -= known
    plane = learnt.T.reshape(1, -1, side, side)
    plane = F.interpolate(plane, size=(grid, grid), mode="bilinear", align_corners=False)
    table = tower.embeddings.position_embedding.weight
    table[0] = small[0]
    table[1:] = plane.flatten(2)[0].T
    table[1:, :width] += codes
