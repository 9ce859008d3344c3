"""Methods inside the vision encoder."""
