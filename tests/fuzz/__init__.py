"""Random calls of random methods on random families, each checked against a law."""
