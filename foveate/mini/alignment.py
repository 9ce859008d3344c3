"""Losses of the vision encoder that need no question.

* Words of patches: every projected visual token learns a high cosine similarity with the LLM's
  embeddings of the words that are true of its patch. The LLM can then find tokens by word, and
  query-similarity methods find aligned tokens. With dot products instead, all tokens grow along one
  direction that means "no" for all words.
* Contents of the image: the CLS token predicts (shape, colour) pairs and written words. Without it,
  the CLS attention that many methods read would stay untrained.
* Silhouettes: the first block separates foreground from background in its patch, the second in the
  surrounding 3 x 3 patches. A small vision encoder does not learn this step on its own in the given
  time, and needs it to recognise shapes in every colour on every background.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig

from .world.labels import CHARACTERS, COLUMN, PICTURE_LABELS, VISUAL_WORDS, visual_word_ids
from .world.vocabulary import LEXICON, SHAPES, SIZES, TEXTURES


@dataclass
class Seen:
    """Projected ``tokens`` (B, P, D), ``cls`` (B, W), ``layers``: L + 1 states (B, P, W)."""

    tokens: Tensor
    cls: Tensor
    layers: list[Tensor]


# Hard and frequently asked words weigh more; sizes are rarely asked and vague.
_WEIGHTS = {SHAPES: 2.0, CHARACTERS: 2.0, LEXICON: 2.0, TEXTURES: 0.5, SIZES: 0.3}
_SHAPE_COLUMNS = slice(COLUMN[SHAPES[0]], COLUMN[SHAPES[-1]] + 1)


def _weights() -> Tensor:
    weights = torch.ones(len(VISUAL_WORDS))
    for words, weight in _WEIGHTS.items():
        weights[[COLUMN[word] for word in words]] = weight
    return weights


class Alignment(nn.Module):
    """Heads and losses, used in training only."""

    def __init__(self, config: CLIPVisionConfig):
        super().__init__()
        width, self.patch = config.hidden_size, config.patch_size
        self.grid = config.image_size // config.patch_size
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        # Most words are false for most patches, so the initial prediction is no.
        self.bias = nn.Parameter(torch.tensor(-4.0))
        self.picture = nn.Linear(width, PICTURE_LABELS)
        nn.init.normal_(self.picture.weight, std=0.02)
        nn.init.constant_(self.picture.bias, -3.0)
        self.own = nn.Linear(width, self.patch**2)
        self.around = nn.Linear(width, (3 * self.patch // 2) ** 2)
        self.register_buffer("weights", _weights(), persistent=False)
        self.register_buffer("word_ids", visual_word_ids(), persistent=False)

    def words(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        """Logits (B, P, W) of `VISUAL_WORDS` for tokens (B, P, D) and word embeddings (V, D)."""
        words = F.normalize(embedding[self.word_ids], dim=-1)
        return F.normalize(tokens, dim=-1) @ words.T * self.log_scale.exp() + self.bias

    def silhouettes(self, layers: list[Tensor], ink: Tensor) -> Tensor:
        """Loss for the ink (B, H, W) of each patch, and of 3 x 3 patches at half resolution."""
        p, g = self.patch, self.grid
        own = ink.view(-1, g, p, g, p).transpose(2, 3).reshape(-1, g * g, p * p)
        half = F.avg_pool2d(ink[:, None], 2)
        around = F.unfold(half, 3 * p // 2, padding=p // 2, stride=p // 2).transpose(1, 2)
        first = F.binary_cross_entropy_with_logits(self.own(layers[1]), own)
        return first + F.binary_cross_entropy_with_logits(self.around(layers[2]), around)

    def forward(self, seen: Seen, embedding: Tensor, batch) -> Tensor:
        """The weighted sum of all losses."""
        logits, labels = self.words(seen.tokens, embedding), batch.patch_words
        patches = F.binary_cross_entropy_with_logits(logits, labels, weight=self.weights)
        shapes = labels[..., _SHAPE_COLUMNS]
        single = shapes.sum(-1) == 1
        guess = logits[..., _SHAPE_COLUMNS][single]
        which = F.cross_entropy(guess, shapes[single].argmax(-1), reduction="sum")
        which = which / single.sum().clamp_min(1)
        picture = F.binary_cross_entropy_with_logits(self.picture(seen.cls), batch.picture_labels)
        outlines = self.silhouettes(seen.layers, batch.ink)
        return 5.0 * patches + 0.3 * which + 5.0 * picture + outlines
