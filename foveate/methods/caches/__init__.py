"""Methods that compress or sparsify the KV cache."""
