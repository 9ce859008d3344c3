"""The decoder. `boundaries` drops, merges and adds columns between two layers, with their `masks`
and `columns`; `lookahead` computes attention scores for it ahead of a layer. `rules` change what
one layer attends to or computes (`block_attention`, `partial_mlp`), `layer_skipping` lets columns
go around layers, and `deepstack` keeps the features that are added after early layers in step.
`forward_call` is what the hooks of one forward call share.
"""
