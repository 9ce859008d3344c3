"""What a task is: a way to draw scenes for one question, and to ask that question of any scene.

A new task is one file with one subclass, named in ``tasks/__init__.py``.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

from ..grammar import choice
from ..scene import Box, Canvas, Scene


@dataclass(frozen=True)
class Question:
    """Text of a question about a scene, its answer, all allowed answers, and where to look."""

    task: str
    text: str
    answer: str
    candidates: tuple[str, ...]
    evidence: tuple[Box, ...]
    meta: dict = field(default_factory=dict)


class Task(ABC):
    """One kind of question about one kind of scene."""

    id: str
    title: str

    @abstractmethod
    def draw(
        self,
        rng: np.random.Generator,
        canvas: Canvas,
        split: str,
        index: int,
        level: float = 1.0,
        words: float = 0.3,
    ) -> tuple[Scene, Question]:
        """A scene made for this task and its question.

        ``index`` goes round the answers, so that any run of consecutive items is balanced.
        ``level`` in 0..1 is the difficulty of training scenes; every other split uses 1. ``words``
        is the share of scenes that carry a word as clutter.
        """

    @abstractmethod
    def ask(self, rng: np.random.Generator, scene: Scene, split: str) -> Question | None:
        """This task's question about a scene that another task drew, or None."""


def fill(template: str, *words: str) -> str:
    """The template with its words, and "an" before a vowel."""
    return re.sub(r"\ba (?=[aeiou])", "an ", template.format(*words))


def wording(rng: np.random.Generator, split: str, seen: tuple, unseen: tuple) -> str:
    """A template: test-ood speaks in the ones that training never uses."""
    return choice(rng, unseen if split == "test-ood" else seen)
