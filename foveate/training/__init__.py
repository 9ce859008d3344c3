"""Training of what methods have to learn, with the base model frozen and the world as teacher.

`foveate train --method SLUG` runs the recipe in `recipes/SLUG.py`; `loop` is all of the training.
"""

from foveate.training.loop import train
from foveate.training.recipe import Recipe, recipe_of, recipe_slugs

__all__ = ["Recipe", "recipe_of", "recipe_slugs", "train"]
