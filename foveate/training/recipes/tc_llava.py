"""TC-LLaVA: fine-tuning with two position counters and bidirectional attention within a frame."""

from foveate.training.fine_tuning import FineTuningRecipe


class TCLLaVARecipe(FineTuningRecipe):
    """Images are used as videos of one frame."""

    slug = "tc_llava"
