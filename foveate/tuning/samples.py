"""The samples that a search measures on, from a JSONL file or from the synthetic tasks.

A file has one JSON object per line: "image", "images" or "video" (paths, relative to the file),
"question", "answer", and optionally "choices". `foveate world` writes such files.
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
    """A question about images or a video, with its answer.

    Attributes:
        question: the question.
        answer: the correct answer.
        images: paths or PIL images; empty for a video.
        candidates: possible answers, of which the one with the highest likelihood counts.
        likely: True to score `candidates`; False to generate text, which must equal `answer`.
        video: path of a video. Default None.
    """

    question: str
    answer: str
    images: tuple[Any, ...] = field(repr=False)
    candidates: tuple[str, ...] = ()
    likely: bool = True
    video: Path | None = None

    @property
    def files(self) -> tuple[Any, ...]:
        """The images, or the video."""
        return self.images if self.video is None else (self.video,)


def read_samples(path: str | Path) -> list[Sample]:
    """All samples of a JSONL file; `TuneError` names an invalid line."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise TuneError(f"There is no file {str(path)!r}; check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise TuneError(f"{str(path)!r} cannot be read ({reason}): use a JSONL file.") from None
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
            f"{str(path)!r} has no samples: write one JSON object per line with image, question "
            "and answer."
        )
    return samples


def world_samples(tasks: Sequence[str], n: int, size: int, patch: int) -> list[Sample]:
    """`n` items of each synthetic task, of the split "val", in images of `size` pixels."""
    from foveate.mini import world

    return [
        Sample(item.question, item.answer, tuple(item.images()), item.candidates)
        for task in tasks
        for item in world.items(task, "val", n, size=size, patch=patch)
    ]


def split(samples: Sequence[Sample], held_out: float, seed: int) -> tuple[list[Sample], ...]:
    """(search split, held-out split): samples that share an image go to the same split.

    Args:
        samples: all samples.
        held_out: share of the held-out split, in (0, 1).
        seed: seed of the shuffle.
    """
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
            f"{len(samples)} samples of {len(groups)} images cannot be split into a search split "
            "and a held-out split: use more images."
        )
    return fit, out


def _sample(line: str, folder: Path) -> Sample:
    try:
        row = json.loads(line)
    except ValueError:
        raise TuneError("it is not JSON: write one object per line.") from None
    if not isinstance(row, dict):
        raise TuneError("it is not a JSON object: write image, question and answer.")
    question, answer = _words(row, "question"), _words(row, "answer")
    choices = row.get("choices") or row.get("candidates") or ()
    if not all(isinstance(c, str) and c for c in choices) or isinstance(choices, str):
        raise TuneError(f"choices={choices!r} is not valid: use a list of strings.")
    if choices and answer not in choices:
        raise TuneError(f"the answer {answer!r} is not one of the choices {list(choices)}.")
    files = tuple(_file(folder, name) for name in _names(row))
    video = files[0] if row.get("video") else None
    images = () if video else files
    return Sample(question, answer, images, tuple(choices) or (answer,), bool(choices), video)


def _words(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise TuneError(f"it has no {name}: write it as a string.")
    return value.strip()


def _names(row: dict[str, Any]) -> list[str]:
    media = row.get("media")
    exported = media.get("files") if isinstance(media, dict) else None
    names = row.get("images") or row.get("image") or exported
    video = row.get("video")
    if video and (names or not isinstance(video, str)):
        raise TuneError("it has more than one video, or a video and images: use one of them.")
    names = names or video
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise TuneError(
            "it has no image: write image or video as a path, or images as a list of paths."
        )
    return names


def _file(folder: Path, name: str) -> Path:
    path = folder / Path(name).expanduser()
    if not path.is_file():
        raise TuneError(f"there is no image or video {str(path)!r}; check the path.")
    return path
