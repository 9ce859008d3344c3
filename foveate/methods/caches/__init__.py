"""Methods that act on what the language model keeps of a prompt."""
