"""The losses that need no question: they teach the tower what is on a picture, and in which words.

* Words of patches: every projected visual token learns a high cosine with the language model's own
  embeddings of the words that hold for its patch. "Find the word, copy its neighbour" is then easy
  to form in the language model, and query-similarity methods find aligned tokens. (With plain dot
  products the tokens grow along one common direction that says no to all words, and the language
  model sees little else of them.)
* Contents of the picture: the CLS token names (shape, colour) pairs and written words. Without it
  the CLS row, which many methods read, would stay untrained.
* Silhouettes: the first layer tells ink from ground in its patch, the second in the surrounding
  three by three patches. Shapes must be told apart in every colour on every ground; silhouettes are
  the step in between that a small tower does not find by itself in the time given.
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
    """``tokens`` (B, P, D) as the LLM sees them, ``cls`` (B, W), ``layers`` L + 1 of (B, P, W)."""

    tokens: Tensor
    cls: Tensor
    layers: list[Tensor]


# What is hard to see and asked for weighs more; sizes are seldom asked and never sharp.
_WEIGHTS = {SHAPES: 2.0, CHARACTERS: 2.0, LEXICON: 2.0, TEXTURES: 0.5, SIZES: 0.3}
_SHAPE_COLUMNS = slice(COLUMN[SHAPES[0]], COLUMN[SHAPES[-1]] + 1)


def _weights() -> Tensor:
    weights = torch.ones(len(VISUAL_WORDS))
    for words, weight in _WEIGHTS.items():
        weights[[COLUMN[word] for word in words]] = weight
    return weights


class Alignment(nn.Module):
    """Heads and losses; thrown away when the training is over."""

    def __init__(self, config: CLIPVisionConfig):
        super().__init__()
        width, self.patch = config.hidden_size, config.patch_size
        self.grid = config.image_size // config.patch_size
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        # Most words do not hold for most patches: start by saying no.
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
        """Ink (B, H, W) of the own patch, and of three by three patches at half resolution."""
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
