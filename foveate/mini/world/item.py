"""One test item: a picture by name, a question, its answer, and the place that shows it."""

from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from .render import render
from .scene import Box, Scene


@dataclass(frozen=True)
class Item:
    """A question about one picture.

    ``candidates`` are all answers that the question allows, ``options`` the lettered choices of the
    multiple-choice form (empty in the word form; the answer is then the word itself). ``evidence``
    holds the boxes (x0, y0, x1, y1) in pixels without which the question cannot be answered; empty
    means that the whole picture is needed, as for an absent object.
    """

    id: str
    split: str
    task: str
    index: int
    question: str
    answer: str
    candidates: tuple[str, ...]
    options: tuple[str, ...]
    evidence: tuple[Box, ...]
    media: dict
    scene: Scene = field(repr=False)
    meta: dict = field(default_factory=dict)

    def pixels(self) -> Tensor:
        """The picture as uint8 (H, W, 3)."""
        return render([self.scene])[0][0]

    def image(self) -> Image.Image:
        """The picture as a PIL image (RGB)."""
        return Image.fromarray(self.pixels().numpy())

    def to_dict(self) -> dict:
        """Plain JSON types; the picture is named, not stored: ``item(task, split, index)``."""
        return {
            "id": self.id,
            "split": self.split,
            "task": self.task,
            "media": self.media,
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image"}, {"type": "text", "text": self.question}],
                }
            ],
            "question": self.question,
            "options": list(self.options),
            "answer": self.answer,
            "candidates": list(self.candidates),
            "evidence": [{"frame": 0, "box": list(box)} for box in self.evidence],
            "meta": self.meta,
        }
