"""The prompt.

`locations` finds where the tokens of images and videos stand. `splice` replaces the placeholders by
the kept visual tokens. `prompt` records which columns every layer has, and `positions` computes
their position ids. `column_sources` computes where the columns of a shortened prompt come from.
`labels` shortens training labels in the same way. `host_copy` reads the token ids before the
encoder runs, without a device sync. `attention_structure` refuses attention masks that are more
than padding.
"""
