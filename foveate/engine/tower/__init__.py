"""The vision tower. Images and videos are encoded here (`encode`), tokens merge between its blocks
(`merging`, `fusing`), what methods need of it is recorded on the way (`recording`), and the result
is one record per visual item (`items`). `clip` runs the tower of a CLIP or SigLIP model alone.
"""
