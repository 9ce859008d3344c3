"""One item: images by name, a question, its answer and the evidence boxes."""

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
    """A question about one or several images, or a dialogue about one image.

    Attributes:
        id: name of the item: world version, split, task and index.
        split: of the item.
        task: id of the task.
        index: in the split.
        question: text of the question.
        answer: correct answer, a word or a letter.
        candidates: all possible answers.
        options: lettered choices; empty in the word form.
        evidence: boxes (x0, y0, x1, y1) in pixels that are needed for the answer. Empty if the
            whole image is needed, for example for an absent object.
        media: name, size and patch of the images, plain values.
        scene: the first image before rendering.
        meta: further facts of the task.
        rivals: wrong answers that the image suggests; the letter form prefers them as options.
        more: scenes after the first, for several images.
        frames: image of each evidence box, for several images.
        content: what precedes the question; `PICTURE` for each image.
        turns: all questions of a dialogue; the first is also the item's.
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
