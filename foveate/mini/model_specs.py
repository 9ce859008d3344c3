"""The embedded models that `foveate train` can make: configuration, tasks and training recipe.

* nano: 64 px, 64 visual tokens; trained from scratch in half an hour on a CPU.
* mini-image: 112 px, 196 visual tokens, two more layers; initialised from nano (`growth`).
* mini-image-192: 192 px, 576 visual tokens, ten wider layers; trained from scratch on a GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from transformers import LlavaConfig, LlavaForConditionalGeneration

from .architecture import image_config, large_image_config, nano_config, new_model
from .growth import grow
from .world.tasks import TASKS, Task, tasks


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of a training run; the defaults are those of nano.

    Attributes:
        warm_up_steps: steps of the vision warm-up.
        joint_steps: steps of the joint training that follows.
        warm_up_batch: images per step in the warm-up.
        joint_batch: images per step in joint training.
        questions: questions per image in joint training, at most.
        warm_up_rate: top learning rate of the warm-up.
        learning_rate: top learning rate of joint training.
        betas: of AdamW.
        weight_decay: of AdamW, on matrices only.
        clip: largest gradient norm.
        ramp_steps: steps at the start of a stage in which the learning rate rises.
        floor: final learning rate as a ratio of the top one.
        alignment: weight of the alignment losses in joint training, (start, end).
        easy_steps: steps until scenes reach full difficulty.
        checkpoint_every: steps between checkpoints.
        shards: parts of a batch on a CPU, one thread each.
    """

    warm_up_steps: int = 4200
    joint_steps: int = 2600
    warm_up_batch: int = 24
    joint_batch: int = 16
    questions: int = 8
    warm_up_rate: float = 1.5e-3
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    clip: float = 1.0
    ramp_steps: int = 150
    floor: float = 0.05
    alignment: tuple[float, float] = (1.0, 0.2)
    easy_steps: int = 3200
    checkpoint_every: int = 200
    shards: int = 2

    @property
    def steps(self) -> int:
        return self.warm_up_steps + self.joint_steps

    def shortened(self, steps: int) -> "Recipe":
        """The same recipe in ``steps`` steps; the stages shrink in proportion."""
        share = steps / self.steps
        warm_up = max(1, round(share * self.warm_up_steps))
        return replace(
            self,
            warm_up_steps=warm_up,
            joint_steps=max(1, steps - warm_up),
            ramp_steps=max(1, round(share * self.ramp_steps)),
            easy_steps=max(1, round(share * self.easy_steps)),
        )


SMOKE = Recipe(
    warm_up_steps=2,
    joint_steps=4,
    warm_up_batch=4,
    joint_batch=2,
    questions=3,
    ramp_steps=1,
    easy_steps=2,
    checkpoint_every=1,
)


@dataclass(frozen=True)
class ModelSpec:
    """An embedded model to train.

    Attributes:
        name: of the model.
        config: makes its configuration.
        start: makes the model with its initial weights from a configuration and a seed.
        tasks: tasks of the procedural world that it is trained on, by id.
        recipe: hyper-parameters of its training.
        origin: embedded model that the initial weights come from; None if they are random.
    """

    name: str
    config: Callable[[], LlavaConfig]
    start: Callable[[LlavaConfig, int], LlavaForConditionalGeneration]
    tasks: dict[str, Task]
    recipe: Recipe
    origin: str | None = None


def _grown(config: LlavaConfig, seed: int) -> LlavaForConditionalGeneration:
    from . import load

    return grow(load("nano")[0], config, seed)


# Documents and charts need more training than a CPU gives in a few hours.
_IMAGE_TASKS = {
    name: task for name, task in tasks(112, medium="image").items() if name not in ("I11", "I12")
}

NANO = ModelSpec("nano", nano_config, new_model, TASKS, Recipe())
IMAGE = ModelSpec(
    "mini-image",
    image_config,
    _grown,
    _IMAGE_TASKS,
    Recipe(
        warm_up_steps=400,
        joint_steps=2000,
        warm_up_batch=24,
        joint_batch=16,
        questions=10,
        warm_up_rate=1e-3,
        learning_rate=8e-4,
        ramp_steps=100,
        alignment=(0.5, 0.15),
        easy_steps=1000,
        checkpoint_every=100,
    ),
    origin="nano",
)
LARGE_IMAGE = ModelSpec(
    "mini-image-192",
    large_image_config,
    new_model,
    tasks(192, medium="image"),
    # Untested: learning rates and stage lengths are scaled from nano's.
    Recipe(
        warm_up_steps=4000,
        joint_steps=8000,
        warm_up_batch=64,
        joint_batch=64,
        questions=12,
        warm_up_rate=1.2e-3,
        learning_rate=8e-4,
        ramp_steps=300,
        easy_steps=6000,
        checkpoint_every=250,
        shards=1,
    ),
)
SPECS = {spec.name: spec for spec in (NANO, IMAGE, LARGE_IMAGE)}
