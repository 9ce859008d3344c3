"""Training batches drawn by worker processes while the GPU computes the current step.

One CPU core renders 64 images of 192 px in about a second. Without workers the GPU would wait.
"""

import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import torch

from . import training_batches
from .training_batches import TrainingBatch

# A fixed number, independent of the cores: a request depends on the accuracies at its time.
STEPS = 32

_LABELS = ("ink", "patch_words", "picture_labels")


class Prefetcher:
    """Draws the batches of steps 0 to ``last - 1`` in worker processes.

    Args:
        request: gives the arguments of `training_batches.draw` for a step. It is called when the
            step is queued. A run that takes its batches in order always queues at the same points.
        last: number of steps of the run.
        processes: number of worker processes.
        steps: how many steps are queued ahead.
    """

    def __init__(
        self, request: Callable[[int], dict], last: int, processes: int, steps: int = STEPS
    ):
        self.request, self.last, self.steps = request, last, steps
        self.queued: dict[int, Future[TrainingBatch]] = {}
        # A forked process would inherit the locks and threads of a running CUDA context.
        self.pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_set_up)

    def queue(self, step: int) -> None:
        """Queue this step and the next ``steps - 1`` ones, as far as they are not queued yet."""
        for coming in range(step, min(step + self.steps, self.last)):
            if coming not in self.queued:
                self.queued[coming] = self.pool.submit(_drawn, self.request(coming))

    def batch(self, step: int) -> TrainingBatch:
        """The batch of a step, labels as uint8 (`TrainingBatch.to` converts them to float32)."""
        self.queue(step)
        batch = self.queued.pop(step).result()
        tensors = {name: torch.from_numpy(getattr(batch, name)) for name in ("pixels", *_LABELS)}
        return replace(batch, **tensors)

    def close(self) -> None:
        """End the processes and cancel queued steps."""
        self.pool.shutdown(cancel_futures=True)


def _set_up() -> None:
    torch.set_num_threads(1)
    # Ctrl-C reaches all processes of a terminal; the training process ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _drawn(request: dict) -> TrainingBatch:
    """A batch of NumPy arrays, labels as uint8: tensors would travel in scarce shared memory."""
    batch = training_batches.draw(**request)
    labels = {name: getattr(batch, name).to(torch.uint8).numpy() for name in _LABELS}
    return replace(batch, pixels=batch.pixels.numpy(), **labels)
