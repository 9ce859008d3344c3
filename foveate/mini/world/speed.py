"""Scenes per second on one thread: ``python -m foveate.mini.world.speed [SIZE]``."""

import sys
import time

import torch

from . import items, render, tasks

COUNT, BATCH = 24, 32


def measure(size: int) -> dict[str, tuple[float, float]]:
    """Scenes per second of process time by task: random scenes, and rendering."""
    items("I1", "test", 1)[0].pixels()  # sets up the table of shapes
    speeds = {}
    for task in tasks(size):
        began = time.process_time()
        scenes = [scene for item in items(task, "test", COUNT, size=size) for scene in item.scenes]
        drawn = time.process_time()
        for first in range(0, len(scenes), BATCH):
            render(scenes[first : first + BATCH])
        done = time.process_time()
        speeds[task] = len(scenes) / (drawn - began), len(scenes) / (done - drawn)
    return speeds


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 192)
    for task, (drawn, rendered) in found.items():
        print(f"{task:4} {drawn:6.0f} drawn {rendered:6.0f} rendered")
    mean = len(found) / sum(1 / d + 1 / r for d, r in found.values())
    print(f"all  {mean:6.0f} scenes per second, drawn and rendered")
