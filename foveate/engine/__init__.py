"""Drives a transformers model by its extension points; knows no method and no family by name."""
