"""Vista-LLaMA: fine-tuning with attention that applies no rotary position to visual tokens."""

from foveate.training.tuned import TunedRecipe


class VistaLLaMARecipe(TunedRecipe):
    """Images are used as videos of one frame."""

    slug = "vista_llama"
