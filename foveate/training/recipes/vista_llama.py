"""Vista-LLaMA: the model learns to do without distances to visual tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from foveate.benchmarks.subject import Subject
from foveate.method import Method
from foveate.methods.layers.vista_llama import VistaLLaMA
from foveate.training.tuned import TunedRecipe


@dataclass(frozen=True, kw_only=True)
class VistaLLaMARecipe(TunedRecipe):
    """Pictures stand for videos of one frame."""

    slug = "vista_llama"
    usage: ClassVar[str] = "--model {folder}/tuned --method vista_llama"

    def method(self, subject: Subject) -> Method:
        return VistaLLaMA()
