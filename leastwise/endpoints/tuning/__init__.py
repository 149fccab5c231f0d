"""A host's interface for training: rows put there, jobs, and what serves the result by the token; every failure in our
words, and no word of a training row in them.

It renders no row, knows no budget and decides nothing. Start reading at `fireworks`.
"""
