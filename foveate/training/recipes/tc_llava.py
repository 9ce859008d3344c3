"""TC-LLaVA: fine-tuning with two position counters and bidirectional attention within a frame."""

from foveate.training.tuned import TunedRecipe


class TCLLaVARecipe(TunedRecipe):
    """Images are used as videos of one frame."""

    slug = "tc_llava"
