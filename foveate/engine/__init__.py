"""Drives a transformers model by its official extension points; knows no method and no family by name."""
