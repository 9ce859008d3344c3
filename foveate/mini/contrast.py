"""The recipe of a mini text tower: image-text contrast beside a vision tower that stays as it is.

The tower's class states of all pictures are computed once and kept; every step draws new captions
of its pictures, so the text side alone is trained, in minutes on a CPU. InfoNCE in both directions
with a learnt temperature, as CLIP has it.
"""

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .clip import VISION, base_of, clip_processor, fingerprint, new_clip, save
from .contrast_card import write_card
from .errors import TrainingError
from .progress import bar
from .world.captions import caption, pictures
from .world.keys import WORLD_VERSION, generator
from .world.render import render
from .world.scene import Canvas


@dataclass(frozen=True)
class Recipe:
    """All numbers of the training run."""

    pictures: int = 6144
    steps: int = 400
    batch: int = 256
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    clip: float = 1.0
    ramp_steps: int = 40
    floor: float = 0.02  # learning rate at the end, as a share of the top
    hottest: float = 100.0  # CLIP's bound of the inverse temperature

    def shortened(self, steps: int) -> "Recipe":
        """The same recipe in ``steps`` steps, pictures in proportion."""
        share = min(1.0, steps / self.steps)
        return replace(
            self,
            steps=steps,
            pictures=max(self.batch, round(self.pictures * share)),
            ramp_steps=max(1, round(self.ramp_steps * share)),
        )


SMOKE = Recipe(pictures=16, steps=2, batch=8, ramp_steps=1)


def canvas_of(model) -> Canvas:
    """The canvas that a CLIP model's pictures are drawn on."""
    vision = model.config.vision_config
    return Canvas(vision.image_size, vision.patch_size)


def normalised(pixels: Tensor) -> Tensor:
    """Pictures uint8 (B, H, W, 3) as the image processor gives them: (B, 3, H, W) in -1..1."""
    return (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


@torch.no_grad()
def class_states(model, scenes: list, progress: bool = False, batch: int = 64) -> Tensor:
    """What the projection of the vision side reads, (N, C)."""
    states = []
    with bar("encoding pictures", len(scenes), show=progress) as tick:
        for first in range(0, len(scenes), batch):
            pixels, _ = render(scenes[first : first + batch])
            states.append(model.vision_model(normalised(pixels)).pooler_output)
            tick(first + len(pixels))
    return torch.cat(states)


def _rate(recipe: Recipe, step: int) -> float:
    fall = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    rise = min(1.0, (step + 1) / recipe.ramp_steps)
    return recipe.learning_rate * rise * (recipe.floor + (1 - recipe.floor) * fall)


def fit(model, processor, recipe: Recipe, seed: int, progress: bool) -> list[dict]:
    """Train the text side of a CLIP model in place; mean losses every 50 steps."""
    scenes = pictures("train", 0, recipe.pictures, canvas_of(model), seed)
    states = class_states(model, scenes, progress)
    trained = [p for name, p in model.named_parameters() if not name.startswith(VISION)]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
    )
    rng = generator("train", f"contrast{seed}", 0)
    history, losses, order = [], [], []
    with bar("training the text tower", recipe.steps, show=progress) as tick:
        for step in range(recipe.steps):
            if len(order) < recipe.batch:
                order = rng.permutation(len(scenes)).tolist()
            chosen, order = order[: recipe.batch], order[recipe.batch :]
            texts = [caption(rng, scenes[i]) for i in chosen]
            inputs = processor.tokenizer(texts, padding=True, return_tensors="pt")
            text = model.get_text_features(inputs.input_ids, inputs.attention_mask).pooler_output
            image = model.visual_projection(states[chosen])
            alike = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
            alike = alike * model.logit_scale.exp()
            own = torch.arange(len(chosen))
            loss = (F.cross_entropy(alike, own) + F.cross_entropy(alike.T, own)) / 2
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, recipe.clip)
            for group in optimiser.param_groups:
                group["lr"] = _rate(recipe, step)
            optimiser.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(recipe.hottest))
            losses.append(loss.item())
            if (step + 1) % 50 == 0 or step + 1 == recipe.steps:
                history.append({"step": step + 1, "loss": round(sum(losses) / len(losses), 4)})
                losses = []
            tick(step + 1, f"loss {loss.item():.3f}")
    return history


def train(
    out: str | Path,
    *,
    model: str = "nano",
    seed: int = 0,
    steps: int | None = None,
    progress: bool = True,
    recipe: Recipe | None = None,
    evaluate: int = 1000,
) -> Path:
    """Train a text tower for the embedded model ``model`` (name, role or folder) into ``out``.

    ``steps`` shortens or lengthens the recipe; ``evaluate`` is the number of held-out pictures for
    the card, 0 for none. Sums run over one thread, so that equal seeds give equal weights.
    """
    recipe = recipe or Recipe()
    if steps is not None:
        if steps < 2:
            raise TrainingError(f"steps must be at least 2, got {steps}.")
        recipe = recipe.shortened(steps)
    if evaluate and evaluate < 50:
        raise TrainingError(f"evaluate={evaluate} pictures measure nothing; use 50 or more, or 0.")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        base, base_processor = base_of(model)
        clip, processor = new_clip(base, seed), clip_processor(base_processor)
        began = time.perf_counter()
        history = fit(clip, processor, recipe, seed, progress)
        facts = {
            "name": f"{Path(model).name}-text",
            "vision": model,
            "fingerprint": fingerprint(base.model.vision_tower),
            "world": WORLD_VERSION,
            "seed": seed,
            "recipe": asdict(recipe),
            "seconds": round(time.perf_counter() - began),
            "parameters": sum(
                p.numel() for name, p in clip.named_parameters() if not name.startswith(VISION)
            ),
            "history": history,
        }
        save(clip, processor, out)
        write_card(out, facts, evaluate, progress)
    finally:
        torch.set_num_threads(before)
    return out
