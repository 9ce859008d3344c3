"""Accuracy of a model on items of the procedural world, one question per row.

It calls only ``model.generate`` and ``model``, so an attached method takes part.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from PIL import Image

from .errors import EvaluationError
from .progress import bar
from .world.item import Item

MODES = ("generate", "likelihood")


@dataclass(frozen=True)
class ItemResult:
    """The answer of the model to one item."""

    id: str
    task: str
    answer: str
    predicted: str
    correct: bool


@dataclass(frozen=True)
class Evaluation:
    """Accuracies in 0..1 by task, and every answer.

    Attributes:
        mode: "generate" or "likelihood".
        no_image: whether the images were replaced by constant-colour images.
        accuracy: by task.
        constant: accuracy of the best constant answer, by task.
        count: number of items, by task.
        results: the answer to every item.
    """

    mode: str
    no_image: bool
    accuracy: dict[str, float]
    constant: dict[str, float]
    count: dict[str, int]
    results: list[ItemResult] = field(repr=False)

    def to_dict(self, items: bool = False) -> dict:
        """Plain JSON types; with ``items`` also every answer."""
        made = asdict(self)
        if not items:
            del made["results"]
        return made


def constant_colour(image: Image.Image) -> Image.Image:
    """An image of the same size that is filled with the mean colour of this one."""
    mean = np.asarray(image.convert("RGB"), dtype=np.float64).mean((0, 1)).round()
    return Image.new("RGB", image.size, tuple(int(v) for v in mean))


def prompt(processor, question: str) -> str:
    """The chat prompt of one question about one image."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )


def constant_answer(items: Iterable[Item]) -> dict[str, float]:
    """Accuracy of the best constant answer, by task.

    Questions with different candidates, such as colours or shapes, have different constant answers,
    because the question alone tells them apart.
    """
    counts: dict[str, dict] = {}
    for item in items:
        answers = counts.setdefault(item.task, {}).setdefault(item.candidates, {})
        answers[item.answer] = answers.get(item.answer, 0) + 1
    best = {task: sum(max(a.values()) for a in sets.values()) for task, sets in counts.items()}
    total = {task: sum(sum(a.values()) for a in sets.values()) for task, sets in counts.items()}
    return {task: best[task] / total[task] for task in counts}


def evaluate(
    model,
    processor,
    items: Sequence[Item],
    *,
    batch_size: int = 50,
    no_image: bool = False,
    mode: str = "generate",
    progress: bool = False,
    before: Callable[[Sequence[Item]], None] | None = None,
) -> Evaluation:
    """Ask the model every item. The model's training mode is restored afterwards.

    Args:
        model: the model, with or without an attached method.
        processor: of the model.
        items: what to ask.
        batch_size: items per call.
        no_image: replace every image by one filled with its mean colour.
        mode: "generate" compares the greedily decoded text with the answer; "likelihood" takes the
            candidate answer with the highest likelihood.
        progress: show a progress bar.
        before: called with the items of each call before it, for oracles.
    """
    if mode not in MODES:
        raise EvaluationError(f"mode={mode!r} is unknown: use one of {', '.join(MODES)}.")
    if batch_size < 1:
        raise EvaluationError(f"batch_size={batch_size} is too small: use at least 1.")
    answer = _generate if mode == "generate" else _likelihood
    training = model.training
    model.eval()
    results: list[ItemResult] = []
    try:
        with torch.no_grad(), bar(f"asking ({mode})", len(items), show=progress) as tick:
            for first in range(0, len(items), batch_size):
                chunk = items[first : first + batch_size]
                images = [item.image() for item in chunk]
                if no_image:
                    images = [constant_colour(image) for image in images]
                told = answer(model, processor, chunk, images, before or _ignore)
                for item, said in zip(chunk, told, strict=True):
                    right = said == item.answer
                    results.append(ItemResult(item.id, item.task, item.answer, said, right))
                tick(len(results))
    finally:
        model.train(training)
    right: dict[str, list[bool]] = {}
    for result in results:
        right.setdefault(result.task, []).append(result.correct)
    return Evaluation(
        mode=mode,
        no_image=no_image,
        accuracy={task: sum(rows) / len(rows) for task, rows in right.items()},
        constant=constant_answer(items),
        count={task: len(rows) for task, rows in right.items()},
        results=results,
    )


def _inputs(model, processor, images, texts):
    inputs = processor(images=images, text=texts, padding=True, return_tensors="pt")
    parameter = next(model.parameters())
    inputs = inputs.to(parameter.device)
    inputs["pixel_values"] = inputs["pixel_values"].to(parameter.dtype)
    return inputs


def _length(processor, words: Iterable[str]) -> int:
    tokenizer = processor.tokenizer
    return max(len(tokenizer(w, add_special_tokens=False).input_ids) for w in words)


def _ignore(items: Sequence[Item]) -> None:
    """The default of `before`."""


def _generate(model, processor, items: Sequence[Item], images, before) -> list[str]:
    before(items)
    texts = [prompt(processor, item.question) for item in items]
    inputs = _inputs(model, processor, images, texts)
    longest = _length(processor, {c for item in items for c in item.candidates})
    tokens = model.generate(**inputs, max_new_tokens=longest + 1, do_sample=False)
    said = tokens[:, inputs["input_ids"].shape[1] :]
    decoded = processor.batch_decode(said, skip_special_tokens=True)
    return [text.strip() for text in decoded]


def _likelihood(model, processor, items: Sequence[Item], images, before) -> list[str]:
    """One row per candidate where candidates have several tokens, else one row per item."""
    tokenizer = processor.tokenizer
    longest = _length(processor, {c for item in items for c in item.candidates})
    texts = [prompt(processor, item.question) for item in items]
    if longest == 1:
        before(items)
        inputs = _inputs(model, processor, images, texts)
        # Prompts are left-padded, so the last position predicts the answer.
        logits = model(**inputs).logits[:, -1].float()
        said = []
        for item, row in zip(items, logits, strict=True):
            ids = tokenizer.convert_tokens_to_ids(list(item.candidates))
            said.append(item.candidates[int(row[ids].argmax())])
        return said
    said = []
    for item, image, text in zip(items, images, texts, strict=True):
        whole = [f"{text}{c}{tokenizer.eos_token}" for c in item.candidates]
        inputs = _inputs(model, processor, [image] * len(whole), whole)
        before([item] * len(whole))
        # Rows are left-padded: count positions from the right.
        scores = model(**inputs).logits.float().log_softmax(-1)
        sums = []
        for row, candidate in enumerate(item.candidates):
            n = len(tokenizer(candidate, add_special_tokens=False).input_ids) + 1
            ids = inputs["input_ids"][row, -n:]
            sums.append(scores[row, -n - 1 : -1].gather(1, ids[:, None]).sum())
        said.append(item.candidates[int(torch.stack(sums).argmax())])
    return said
