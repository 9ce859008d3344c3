"""Runs methods on a transformers model through hooks; names no method and no model family.

`attachment` puts the hooks on a model, and `phases` has one function for each step of a call.
`tower` runs the vision encoder, `prompt` shortens the prompt, `decoder` acts inside the LLM, and
`cache` on the KV cache. `anatomy` finds the modules of a model, `state` is what changes during a
call, and `reporting` makes the reports.
"""
