"""Runs methods on a transformers model through hooks; names no method and no model family."""
