"""What a search measures on: questions about pictures with their answers, from a file or the world.

A file holds one JSON object per line: "image", "images" or "video" (paths, relative to the file),
"question", "answer", and "choices" where the answer is one of a few. What `foveate world` writes is
such a file.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError
from foveate.tuning.errors import TuneError


@dataclass(frozen=True)
class Sample:
    """A question about pictures, which are paths or PIL images, or about a video file.

    candidates: the answers among which the likeliest is taken. likely: whether there are any to
    choose from; otherwise the model writes, and its words must be `answer`.
    """

    question: str
    answer: str
    images: tuple[Any, ...] = field(repr=False)
    candidates: tuple[str, ...] = ()
    likely: bool = True
    video: Path | None = None

    @property
    def files(self) -> tuple[Any, ...]:
        """What the question is about, as it was given."""
        return self.images if self.video is None else (self.video,)


def read_samples(path: str | Path) -> list[Sample]:
    """All samples of a JSONL file; `TuneError` names the line that is no sample."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise TuneError(f"There is no file {str(path)!r}; check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise TuneError(f"{str(path)!r} can't be read ({reason}); give a JSONL file.") from None
    samples = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            samples.append(_sample(line, path.parent))
        except FoveateError as error:
            raise TuneError(f"Line {number} of {str(path)!r}: {error}") from None
    if not samples:
        raise TuneError(
            f"{str(path)!r} holds no samples; write one JSON object per line with image, question "
            "and answer."
        )
    return samples


def world_samples(tasks: Sequence[str], n: int, size: int, patch: int) -> list[Sample]:
    """`n` items of each task of the world, of the split that is kept for choosing."""
    from foveate.mini import world

    return [
        Sample(item.question, item.answer, tuple(item.images()), item.candidates)
        for task in tasks
        for item in world.items(task, "val", n, size=size, patch=patch)
    ]


def split(samples: Sequence[Sample], held_out: float, seed: int) -> tuple[list[Sample], ...]:
    """(fit, held out): samples that share a picture go to the same part."""
    groups: dict[Any, list[Sample]] = {}
    for number, sample in enumerate(samples):
        names = [file for file in sample.files if isinstance(file, str | Path)]
        groups.setdefault(str(names[0]) if names else number, []).append(sample)
    shuffled = list(groups.values())
    random.Random(seed).shuffle(shuffled)
    wanted, fit, out = held_out * len(samples), [], []
    for group in shuffled:
        (out if len(out) + len(group) / 2 <= wanted else fit).extend(group)
    if not fit or not out:
        raise TuneError(
            f"{len(samples)} samples of {len(groups)} pictures can't be split into one part to fit "
            "and one to report; give more pictures."
        )
    return fit, out


def _sample(line: str, folder: Path) -> Sample:
    try:
        row = json.loads(line)
    except ValueError:
        raise TuneError("it is no JSON; write one object per line.") from None
    if not isinstance(row, dict):
        raise TuneError("it is no JSON object; write image, question and answer.")
    question, answer = _words(row, "question"), _words(row, "answer")
    choices = row.get("choices") or row.get("candidates") or ()
    if not all(isinstance(c, str) and c for c in choices) or isinstance(choices, str):
        raise TuneError(f"choices={choices!r} is no list of words; write a list of strings.")
    if choices and answer not in choices:
        raise TuneError(f"the answer {answer!r} is none of its choices {list(choices)}.")
    files = tuple(_file(folder, name) for name in _names(row))
    video = files[0] if row.get("video") else None
    images = () if video else files
    return Sample(question, answer, images, tuple(choices) or (answer,), bool(choices), video)


def _words(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise TuneError(f"it has no {name}; write it as a string.")
    return value.strip()


def _names(row: dict[str, Any]) -> list[str]:
    media = row.get("media")
    exported = media.get("files") if isinstance(media, dict) else None
    names = row.get("images") or row.get("image") or exported
    video = row.get("video")
    if video and (names or not isinstance(video, str)):
        raise TuneError("it has more than one video, or pictures beside it; ask about one of them.")
    names = names or video
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise TuneError(
            "it has no picture; write image or video as a path, or images as a list of them."
        )
    return names


def _file(folder: Path, name: str) -> Path:
    path = folder / Path(name).expanduser()
    if not path.is_file():
        raise TuneError(f"there is no picture or video {str(path)!r}; check the path.")
    return path
