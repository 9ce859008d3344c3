"""Methods before the vision encoder."""
