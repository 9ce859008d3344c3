"""Training of the learned modules of methods, on the procedural world.

`foveate train --method SLUG` runs the recipe in `recipes/SLUG.py`. The training loop is `loop.py`.
Most recipes keep the base model frozen; some fine-tune it.
"""

from foveate.training.loop import train
from foveate.training.recipe import Recipe, recipe_of, recipe_slugs

__all__ = ["Recipe", "recipe_of", "recipe_slugs", "train"]
