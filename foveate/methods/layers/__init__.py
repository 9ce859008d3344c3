"""Methods that act between decoder layers."""
