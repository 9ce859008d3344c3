"""The phases of one call, in the order in which they run: `generate` notes what it was given,
`encode` runs the vision encoder, `forward` decides whether a forward call is a `prefill` or a
`decode`, and `finish` ends it. `candidates` splits calls that mix a prompt with generated tokens.

Each is a function of the `Setup` of the attachment and the state of the call; hooks call them.
"""
