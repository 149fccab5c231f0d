"""Which of several variants a search goes on with, and what a model's label likelihoods say, as arithmetic.

It asks nothing, reads no rows and never sees the gate: scores and likelihoods of dev rows are handed in. Start reading
at `one_standard_error.py`.
"""
