"""The KV cache.

`cache_parts` runs the methods that act on it. `stored_layer` is a cache layer that stores some
columns in another format, such as quantised. `stored_attention` attends to them without unpacking.
`provenance` records which prompt filled a cache, and checks who continues it.
"""
