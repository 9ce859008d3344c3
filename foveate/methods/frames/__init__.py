"""Methods that act before the vision tower."""
