"""The model card of a CLIP text encoder: retrieval, zero-shot accuracy, README."""

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .clip import load_clip
from .progress import bar
from .world.captions import MOST, caption, pictures
from .world.classes import KINDS, PROMPTS, labelled
from .world.keys import generator
from .world.render import render
from .world.scene import Canvas


@torch.no_grad()
def image_features(model, processor, scenes: list, progress: bool = False) -> Tensor:
    """Normalised image features (N, D) of scenes, through the processor."""
    rows = []
    with bar("encoding images", len(scenes), show=progress) as tick:
        for first in range(0, len(scenes), 64):
            pixels, _ = render(scenes[first : first + 64])
            inputs = processor(images=list(pixels.numpy()), return_tensors="pt")
            rows.append(model.get_image_features(**inputs.to(model.dtype)).pooler_output)
            tick(first + len(pixels))
    return F.normalize(torch.cat(rows), dim=-1)


@torch.no_grad()
def text_features(model, processor, texts: list[str]) -> Tensor:
    """Normalised text features (N, D)."""
    inputs = processor(text=texts, padding=True, return_tensors="pt")
    return F.normalize(model.get_text_features(**inputs).pooler_output, dim=-1)


def recall(alike: Tensor) -> dict[str, float]:
    """Recall at 1 and 5: how often the match of row i of a similarity (N, N) is column i."""
    place = (alike > alike.diagonal()[:, None]).sum(1)
    return {f"R@{k}": round((place < k).float().mean().item(), 4) for k in (1, 5)}


def measure(folder: Path, count: int, progress: bool = False) -> dict:
    """Retrieval among `count` held-out images, and zero-shot accuracy on `count` of each kind."""
    model, processor = load_clip(folder)
    vision = model.config.vision_config
    canvas = Canvas(vision.image_size, vision.patch_size)
    scenes = pictures("test", 0, count, canvas)
    told = [
        caption(generator("test", "caption", i, "words"), scene, fewest=MOST)
        for i, scene in enumerate(scenes)
    ]
    image = image_features(model, processor, scenes, progress)
    alike = image @ text_features(model, processor, told).T
    shots = {}
    for kind, classes in KINDS.items():
        shown = [labelled(kind, "test", i, canvas) for i in range(count)]
        names = [text_features(model, processor, [p.format(c) for p in PROMPTS[kind]]).mean(0)
                 for c in classes]  # fmt: skip
        image = image_features(model, processor, [s.scene for s in shown], progress)
        said = (image @ F.normalize(torch.stack(names), dim=-1).T).argmax(1).tolist()
        right = sum(classes[k] == s.label for k, s in zip(said, shown, strict=True))
        shots[kind] = {"accuracy": round(right / count, 4), "chance": round(1 / len(classes), 4)}
    return {
        "items": count,
        "image_to_text": recall(alike),
        "text_to_image": recall(alike.T),
        "zero_shot": shots,
    }


def write_card(folder: Path, facts: dict, count: int, progress: bool = False) -> None:
    """Write ``card.json`` (loading needs it), measure, and write it again with ``README.md``."""
    path = folder / "card.json"
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    if count:
        facts = facts | measure(folder, count, progress)
        path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(page(facts), encoding="utf-8")


def page(card: dict) -> str:
    """The card as a page."""
    recipe = card["recipe"]
    parts = [
        f"# {card['name']}",
        f"A CLIP text encoder of {card['parameters'] / 1e6:.2f} M parameters (two layers, width "
        "96, both projections included). It was trained for the frozen vision encoder of "
        f"`{card['vision']}`. It knows the 512 words of the procedural world. Texts end with "
        "`<reserved0>`.",
        f"- training data: {recipe['pictures']:,} images; new captions in each of "
        f"{recipe['steps']:,} steps, batch size {recipe['batch']}\n"
        f"- training time: {card['seconds'] / 60:.1f} minutes on one CPU thread\n"
        f"- seed: {card['seed']}",
    ]
    if "items" in card:
        rows = ["| retrieval | R@1 | R@5 |", "|---|---|---|"]
        for name in ("image_to_text", "text_to_image"):
            found = card[name]
            rows.append(f"| {name.replace('_', ' ')} | {found['R@1']:.3f} | {found['R@5']:.3f} |")
        shots = ["| zero-shot | accuracy | chance |", "|---|---|---|"]
        for kind, row in card["zero_shot"].items():
            shots.append(f"| {kind} | {row['accuracy']:.3f} | {row['chance']:.3f} |")
        parts += [
            f"## Accuracy on {card['items']:,} held-out images",
            "\n".join(rows),
            "Each image has one caption of up to four facts. The caption of another image can also "
            "be true, so recall cannot reach 1.",
            "\n".join(shots),
        ]
    curve = ["| step | loss |", "|---|---|"]
    history = card["history"]
    kept = history[::-1][:: max(1, len(history) // 10)][::-1]
    curve += [f"| {record['step']} | {record['loss']:g} |" for record in kept]
    parts += ["## Training loss", "\n".join(curve)]
    parts.append(
        f"Reproduce with `foveate train mini-text --model {card['vision']} --seed {card['seed']}`. "
        "All numbers are in `card.json`."
    )
    return "\n\n".join(parts) + "\n"
