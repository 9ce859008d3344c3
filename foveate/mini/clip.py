"""CLIP models made of an embedded model's vision encoder and a trained text encoder.

A folder holds the text encoder, both projections and the temperature. The vision encoder is that of
the embedded model named in `card.json`, so no weight is stored twice.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTextConfig

from .available_models import ROLES, WEIGHTS, available
from .errors import WeightsError
from .text import build_tokenizer
from .weights_loading import load_folder, silent_bars
from .world.vocabulary import VOCABULARY_SIZE, ids

# CLIP pools the state of the last token. If its id is 2, as <eos> here, transformers takes the
# largest id instead of the end. So texts end with another token.
END = "<reserved0>"
VISION = "vision_model."
LONGEST = 64


def text_config(projection: int) -> CLIPTextConfig:
    """Two layers of width 96: half a megabyte in bfloat16."""
    return CLIPTextConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=96,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=3,
        max_position_embeddings=LONGEST,
        projection_dim=projection,
        pad_token_id=ids()["<pad>"],
        bos_token_id=ids()["<bos>"],
        eos_token_id=ids()[END],
    )


def new_clip(base, seed: int) -> CLIPModel:
    """A CLIP model: the vision encoder of an embedded model, a new text encoder and projections."""
    tower = base.model.vision_tower
    width = 128
    config = CLIPConfig(
        text_config=text_config(width).to_dict(),
        vision_config={**tower.config.to_dict(), "projection_dim": width},
        projection_dim=width,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(config)
    model.vision_model.load_state_dict(tower.state_dict())
    return model


def clip_processor(base_processor) -> CLIPProcessor:
    """The embedded model's image processor, and its tokenizer with the end token of CLIP."""
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"eos_token": END})
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = LONGEST
    tokenizer.chat_template = None
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"<bos> $A {END}", special_tokens=[(t, ids()[t]) for t in ("<bos>", END)]
    )
    return CLIPProcessor(image_processor=base_processor.image_processor, tokenizer=tokenizer)


def fingerprint(tower: nn.Module) -> str:
    """A hash of a vision encoder's weights in bfloat16."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def save(model: CLIPModel, processor: CLIPProcessor, out: Path) -> None:
    """Write all but the vision encoder as bfloat16 safetensors, with config and processor."""
    side = {
        name: value.detach().to(torch.bfloat16).contiguous()
        for name, value in model.state_dict().items()
        if not name.startswith(VISION)
    }
    from safetensors.torch import save_file

    save_file(side, out / "model.safetensors", {"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    model.config.architectures = ["CLIPModel"]
    model.config.save_pretrained(out)
    processor.save_pretrained(out)


def base_of(name: str):
    """The embedded model whose vision encoder is used, by name, role or folder."""
    inside = ROLES.get(name, name)
    return load_folder(WEIGHTS / inside if inside in available() else Path(name))


def load_clip(folder: Path, dtype: torch.dtype | None = None) -> tuple[CLIPModel, CLIPProcessor]:
    """``(model, processor)`` from a folder that `save` wrote; the model is in eval mode."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    base, _ = base_of(card["vision"])
    tower = base.model.vision_tower
    if fingerprint(tower) != card["fingerprint"]:
        raise WeightsError(
            f"The text encoder in {folder.name!r} was trained for other weights of "
            f"{card['vision']!r}. Train it again with 'foveate train mini-text --model "
            f"{card['vision']}'."
        )
    with silent_bars():
        model = CLIPModel(CLIPConfig.from_pretrained(folder, local_files_only=True))
        processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    weights = load_file(folder / "model.safetensors")
    weights |= {VISION + name: value for name, value in tower.state_dict().items()}
    model.load_state_dict(weights)
    return model.to(dtype or torch.float32).eval(), processor
