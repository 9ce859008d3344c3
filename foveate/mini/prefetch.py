"""Lessons of coming steps, drawn by other processes while the present one is learnt.

A core draws 64 pictures of 192 px in about a second, which a GPU would spend waiting.
"""

import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import torch

from . import lessons
from .lessons import Lesson

# Fixed, and not a number of cores: what is asked for depends on how much is known by then.
STEPS = 32

_LABELS = ("ink", "patch_words", "picture_labels")


class Prefetcher:
    """Draws the lessons of the steps 0 to ``last - 1``, ``steps`` of them ahead.

    ``request`` gives the arguments of `lessons.draw` for a step, when that step is asked for: a run
    that takes its lessons in order always asks at the same points. Labels come as bytes;
    `Lesson.to` makes them the numbers that they are.
    """

    def __init__(
        self, request: Callable[[int], dict], last: int, processes: int, steps: int = STEPS
    ):
        self.request, self.last, self.steps = request, last, steps
        self.asked: dict[int, Future[Lesson]] = {}
        # A forked process would inherit the locks and threads of a running CUDA.
        self.pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_set_up)

    def ask(self, step: int) -> None:
        """Have the lessons of a step and of those after it drawn, as far as not asked for yet."""
        for coming in range(step, min(step + self.steps, self.last)):
            if coming not in self.asked:
                self.asked[coming] = self.pool.submit(_drawn, self.request(coming))

    def lesson(self, step: int) -> Lesson:
        """The lesson of a step; those after it are asked for meanwhile."""
        self.ask(step)
        lesson = self.asked.pop(step).result()
        tensors = {name: torch.from_numpy(getattr(lesson, name)) for name in ("pixels", *_LABELS)}
        return replace(lesson, **tensors)

    def close(self) -> None:
        """End the processes; what nobody has begun to draw is forgotten."""
        self.pool.shutdown(cancel_futures=True)


def _set_up() -> None:
    torch.set_num_threads(1)
    # Ctrl-C reaches all processes of a terminal; the one that asks ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _drawn(request: dict) -> Lesson:
    """A lesson of arrays, zeros and ones as bytes: tensors would travel in scarce shared memory."""
    lesson = lessons.draw(**request)
    labels = {name: getattr(lesson, name).to(torch.uint8).numpy() for name in _LABELS}
    return replace(lesson, pixels=lesson.pixels.numpy(), **labels)
