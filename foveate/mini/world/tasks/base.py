"""What a task is: a way to draw scenes for one question, and to ask that question of any scene.

A new task is one file with one subclass, named in ``tasks/__init__.py``. Keyword-only parameters of
its ``draw`` are its knobs: how hard it is, with the value that tests use as the default.
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
    """Text of a question about a scene, its answer, all allowed answers, and where to look.

    ``rivals`` are wrong answers that the picture suggests. With several pictures ``frames`` names
    the one of each evidence box and ``content`` is what stands before the question.
    """

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
    """What all tasks say of themselves.

    ``medium`` is "image" (one picture, one question), "images" (several pictures) or "dialogue"
    (several questions); ``grids`` the smallest and largest number of patches per side that the task
    is meant for.
    """

    id: str
    title: str
    medium: str = "image"
    grids: tuple[int, int] = (4, 64)

    def fits(self, canvas: Canvas) -> bool:
        """Whether the task is meant for pictures of this many patches."""
        return self.grids[0] <= canvas.grid <= self.grids[1]

    def knobs(self) -> dict:
        """Names and default values of what can be made easier or harder."""
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
        """A scene made for this task and its question.

        ``index`` goes round the answers, so that any run of consecutive items is balanced.
        ``level`` in 0..1 is the difficulty of training scenes; every other split uses 1. ``words``
        is the share of scenes that carry a word as clutter.
        """


class Task(Asked):
    """One kind of question about one kind of scene: ``draw`` gives a scene and a question."""

    def ask(self, rng: np.random.Generator, scene: Scene, split: str) -> Question | None:
        """This task's question about a scene that another task drew, or None."""
        return None


class Series(Asked):
    """A question about several pictures: ``draw`` gives a tuple of scenes and a question."""

    medium = "images"


class Dialogue(Asked):
    """Several questions about one picture: ``draw`` gives a scene and a tuple of questions."""

    medium = "dialogue"


def between(name: str, value: float, low: float, high: float) -> None:
    """Refuse a knob outside its range."""
    if not low <= value <= high:
        raise WorldError(f"{name}={value} is out of range: use {low} to {high}.")


def span(name: str, value: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """A knob that is a pair (least, most) within a range."""
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise WorldError(f"{name}={value} is no range: use a pair within {low} to {high}.")
    return value[0], value[1]


def fill(template: str, *words: str) -> str:
    """The template with its words, and "an" before a vowel."""
    return re.sub(r"\ba (?=[aeiou])", "an ", template.format(*words))


def wording(rng: np.random.Generator, split: str, seen: tuple, unseen: tuple) -> str:
    """A template: test-ood speaks in the ones that training never uses."""
    return choice(rng, unseen if split == "test-ood" else seen)
