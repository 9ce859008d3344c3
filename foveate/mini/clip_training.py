"""Training of a CLIP text encoder for the frozen vision encoder of an embedded model.

The class-token states of all images are computed once. Every step draws new captions, so only the
text encoder and both projections are trained: minutes on a CPU. The loss is CLIP's: InfoNCE in both
directions with a learned temperature.
"""

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .clip import VISION, base_of, clip_processor, fingerprint, new_clip, save
from .clip_card import write_card
from .errors import TrainingError
from .progress import bar
from .world.captions import caption, pictures
from .world.keys import WORLD_VERSION, generator
from .world.render import render
from .world.scene import Canvas


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of the training run.

    Attributes:
        pictures: number of training images.
        steps: number of steps.
        batch: image-text pairs per step.
        learning_rate: top learning rate.
        betas: of AdamW.
        weight_decay: of AdamW, on matrices only.
        clip: largest gradient norm.
        ramp_steps: steps in which the learning rate rises.
        floor: final learning rate as a ratio of the top one.
        hottest: largest inverse temperature (CLIP's bound).
    """

    pictures: int = 6144
    steps: int = 400
    batch: int = 256
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    clip: float = 1.0
    ramp_steps: int = 40
    floor: float = 0.02
    hottest: float = 100.0

    def shortened(self, steps: int) -> "Recipe":
        """The same recipe in ``steps`` steps, with proportionally many images."""
        share = min(1.0, steps / self.steps)
        return replace(
            self,
            steps=steps,
            pictures=max(self.batch, round(self.pictures * share)),
            ramp_steps=max(1, round(self.ramp_steps * share)),
        )


SMOKE = Recipe(pictures=16, steps=2, batch=8, ramp_steps=1)


def canvas_of(model) -> Canvas:
    """Image and patch size of a CLIP model."""
    vision = model.config.vision_config
    return Canvas(vision.image_size, vision.patch_size)


def normalised(pixels: Tensor) -> Tensor:
    """Images uint8 (B, H, W, 3) as the image processor returns them: (B, 3, H, W) in -1..1."""
    return (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


@torch.no_grad()
def class_states(model, scenes: list, progress: bool = False, batch: int = 64) -> Tensor:
    """Input of the visual projection for each scene, (N, C)."""
    states = []
    with bar("encoding images", len(scenes), show=progress) as tick:
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
    """Train the text encoder and projections in place; returns mean losses every 50 steps."""
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
    with bar("training the text encoder", recipe.steps, show=progress) as tick:
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
    """Train a text encoder for an embedded model and write it to a folder, with its model card.

    It runs on one thread, so equal seeds give equal weights.

    Args:
        out: folder to write.
        model: embedded model whose vision encoder is used: name, role or folder.
        seed: of the initial weights and the captions.
        steps: number of steps; None is the recipe's.
        progress: show progress bars.
        recipe: hyper-parameters.
        evaluate: held-out images for the model card, at least 50; 0 for none.
    """
    recipe = recipe or Recipe()
    if steps is not None:
        if steps < 2:
            raise TrainingError(f"steps={steps} is too small: use at least 2.")
        recipe = recipe.shortened(steps)
    if evaluate and evaluate < 50:
        raise TrainingError(f"evaluate={evaluate} is too small: use at least 50 images, or 0.")
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
