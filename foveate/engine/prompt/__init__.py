"""The prompt. `locations` finds the visual items in it, `splice` replaces their placeholders by the
tokens that were kept, and `prompt` holds what every stage kept, with the sources of the columns
(`column_sources`). `labels` moves labels along, `host_copy` reads ids without a device wait, and
`attention_structure` refuses masks that padding alone does not explain.
"""
