"""The KV cache. `cache_parts` runs methods that act on it, `stored_layer` is a cache layer that
keeps some columns in another form (quantised), `stored_attention` attends to it without unpacking
it, and `provenance` says which prompt filled a cache and who may continue it.
"""
