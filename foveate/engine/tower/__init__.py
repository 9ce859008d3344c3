"""The vision encoder.

`encode` runs one encoding call. `merging` merges tokens between attention and MLP of its blocks,
and `fusing` gives each crop its exact number of merged tokens. `recording` records the signals that
methods need. `items` holds the result, one item per image or video, and runs the methods that act
before the LLM. `dual_encoder` makes the vision encoder of a CLIP or SigLIP model usable for
merging.
"""
