"""Base classes of tasks: draw a scene with a question, or ask the question about another scene.

A new task is a file with a subclass, listed in ``tasks/__init__.py``. The keyword-only parameters
of its ``draw`` set its difficulty; the defaults are those of the tests.
"""

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..grammar import choice
from ..keys import WorldError
from ..scene import Box, Canvas, Scene


@dataclass(frozen=True)
class Question:
    """A question about a scene; the fields are those of `Item`."""

    task: str
    text: str
    answer: str
    candidates: tuple[str, ...]
    evidence: tuple[Box, ...]
    meta: dict = field(default_factory=dict)
    rivals: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()
    content: tuple[str, ...] = ()


class Asked(ABC):
    """What all tasks have.

    Attributes:
        id: of the task, such as "I1".
        title: a short name.
        medium: "image" (one image, one question), "images" (several images) or "dialogue" (several
            questions).
        grids: smallest and largest number of patches per side.
    """

    id: str
    title: str
    medium: str = "image"
    grids: tuple[int, int] = (4, 64)

    def fits(self, canvas: Canvas) -> bool:
        """Whether the task exists for this number of patches."""
        return self.grids[0] <= canvas.grid <= self.grids[1]

    def knobs(self) -> dict:
        """Difficulty parameters with their defaults."""
        parameters = inspect.signature(self.draw).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @abstractmethod
    def draw(
        self,
        rng: np.random.Generator,
        canvas: Canvas,
        split: str,
        index: int,
        level: float = 1.0,
        words: float = 0.3,
    ) -> tuple[Any, Any]:
        """A scene for this task and its question.

        Args:
            rng: random numbers of the item.
            canvas: image and patch size.
            split: of the item.
            index: rotates through the answers, so that consecutive items are balanced.
            level: difficulty of training scenes in 0..1; other splits use 1.
            words: fraction of the scenes that have a word as distractor.
        """


class Task(Asked):
    """A question about one image: ``draw`` returns a scene and a question."""

    def ask(self, rng: np.random.Generator, scene: Scene, split: str) -> Question | None:
        """This task's question about a scene of another task; None if it does not apply."""
        return None


class Series(Asked):
    """A question about several images: ``draw`` returns a tuple of scenes and a question."""

    medium = "images"


class Dialogue(Asked):
    """Several questions about one image: ``draw`` returns a scene and a tuple of questions."""

    medium = "dialogue"


def between(name: str, value: float, low: float, high: float) -> None:
    """Raise `WorldError` for a parameter outside its range."""
    if not low <= value <= high:
        raise WorldError(f"{name}={value} is out of range: use {low} to {high}.")


def span(name: str, value: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """A parameter that is a pair (least, most) within a range."""
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise WorldError(f"{name}={value} is not a valid range: use a pair within {low} to {high}.")
    return value[0], value[1]


def fill(template: str, *words: str) -> str:
    """The template with its words, and "an" before a vowel."""
    return re.sub(r"\ba (?=[aeiou])", "an ", template.format(*words))


def wording(rng: np.random.Generator, split: str, seen: tuple, unseen: tuple) -> str:
    """A random template; test-ood uses those that never occur in training."""
    return choice(rng, unseen if split == "test-ood" else seen)
