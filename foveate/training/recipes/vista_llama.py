"""Vista-LLaMA: fine-tuning with attention that applies no rotary position to visual tokens."""

from foveate.training.fine_tuning import FineTuningRecipe


class VistaLLaMARecipe(FineTuningRecipe):
    """Images are used as videos of one frame."""

    slug = "vista_llama"
