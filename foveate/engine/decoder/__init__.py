"""The decoder of the LLM.

`boundaries` drops, merges and adds columns between two layers, with their `masks` and `columns`.
`lookahead` computes the attention of a layer before it runs. `rules` change what one layer attends
to or computes (`block_attention`, `partial_mlp`). `layer_skipping` lets columns skip layers.
`deepstack` aligns the features that are added after early layers. `forward_call` is the state that
the hooks of one forward call share.
"""
