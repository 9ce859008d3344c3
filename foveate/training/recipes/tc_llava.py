"""TC-LLaVA: the model learns two clocks at once, and frames that see themselves both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from foveate.benchmarks.subject import Subject
from foveate.method import Method
from foveate.methods.layers.tc_llava import TCLLaVA
from foveate.training.tuned import TunedRecipe


@dataclass(frozen=True, kw_only=True)
class TCLLaVARecipe(TunedRecipe):
    """Pictures stand for videos of one frame."""

    slug = "tc_llava"
    usage: ClassVar[str] = "--model {folder}/tuned --method tc_llava"

    def method(self, subject: Subject) -> Method:
        return TCLLaVA()
