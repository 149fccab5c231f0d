"""The causal model while it is trained: its linear layers, how this hardware computes it, its proof, its checkpoints.

It runs no training loop, starts no process and judges nothing. Start reading at `layers` (what of a model is trained),
then `computing` (by which kernels and in which pieces) and `proof` (that what is kept is what was trained).
"""
