"""Methods that stand in place of, or behind, the projector."""
