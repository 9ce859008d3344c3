"""Methods that act between the vision tower and the language model."""
