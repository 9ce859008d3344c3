"""One test item: pictures by name, a question, its answer, and the place that shows it."""

from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from .keys import WorldError
from .render import render
from .scene import Box, Scene

PICTURE = "<image>"


@dataclass(frozen=True)
class Turn:
    """One question of a dialogue; the fields are those of `Item`."""

    question: str
    answer: str
    candidates: tuple[str, ...]
    options: tuple[str, ...]
    evidence: tuple[Box, ...]
    rivals: tuple[str, ...] = ()
    meta: dict = field(default_factory=dict)

    def to_dict(self) -> dict:
        """Plain JSON types."""
        return {
            "question": self.question,
            "options": list(self.options),
            "answer": self.answer,
            "candidates": list(self.candidates),
            "evidence": [{"frame": 0, "box": list(box)} for box in self.evidence],
            "meta": self.meta,
        }


@dataclass(frozen=True)
class Item:
    """A question about one picture, or about several, or a dialogue about one.

    ``candidates`` are all answers that the question allows, ``options`` the lettered choices of the
    multiple-choice form (empty in the word form; the answer is then the word itself). ``evidence``
    holds the boxes (x0, y0, x1, y1) in pixels without which the question cannot be answered; empty
    means that the whole picture is needed, as for an absent object. ``rivals`` are wrong answers
    that the picture suggests; the lettered form prefers them.

    Several pictures: ``more`` holds the scenes after the first, ``frames`` the picture of each
    evidence box, ``content`` what stands before the question, `PICTURE` for each picture. Dialogue:
    ``turns`` holds all questions; the first of them is also that of the item.
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
    rivals: tuple[str, ...] = ()
    more: tuple[Scene, ...] = field(default=(), repr=False)
    frames: tuple[int, ...] = ()
    content: tuple[str, ...] = (PICTURE,)
    turns: tuple[Turn, ...] = ()

    @property
    def scenes(self) -> tuple[Scene, ...]:
        """One scene per picture."""
        return (self.scene, *self.more)

    def pixels(self) -> Tensor:
        """The first picture as uint8 (H, W, 3)."""
        return render([self.scene])[0][0]

    def image(self) -> Image.Image:
        """The picture as a PIL image (RGB)."""
        if self.more:
            raise WorldError(f"{self.id} has {1 + len(self.more)} pictures: use images().")
        return Image.fromarray(self.pixels().numpy())

    def images(self) -> list[Image.Image]:
        """All pictures as PIL images (RGB), in the order of the question."""
        return [Image.fromarray(pixels.numpy()) for pixels in render(list(self.scenes))[0]]

    def messages(self, turn: int | None = None) -> list[dict]:
        """The chat up to a question, the last one by default, with the right answers between."""
        content = [
            {"type": "image"} if part == PICTURE else {"type": "text", "text": part}
            for part in self.content
        ]
        asked = self.turns or (self,)
        last = len(asked) - 1 if turn is None else turn
        if not 0 <= last < len(asked):
            raise WorldError(f"{self.id} has no turn {turn}: its turns are 0 to {len(asked) - 1}.")
        messages = []
        for k, one in enumerate(asked[: last + 1]):
            text = {"type": "text", "text": one.question}
            messages.append({"role": "user", "content": [*content, text] if k == 0 else [text]})
            if k < last:
                answer = {"type": "text", "text": one.answer}
                messages.append({"role": "assistant", "content": [answer]})
        return messages

    def to_dict(self) -> dict:
        """Plain JSON types; the picture is named, not stored: ``item(task, split, index)``."""
        frames = self.frames or (0,) * len(self.evidence)
        made = {
            "id": self.id,
            "split": self.split,
            "task": self.task,
            "media": self.media,
            "messages": self.messages(),
            "question": self.question,
            "options": list(self.options),
            "answer": self.answer,
            "candidates": list(self.candidates),
            "evidence": [
                {"frame": frame, "box": list(box)}
                for frame, box in zip(frames, self.evidence, strict=True)
            ],
            "meta": self.meta,
        }
        if self.turns:
            made["turns"] = [turn.to_dict() for turn in self.turns]
        return made
