"""Sentences of random words, for tables of tests in which no two rows say nearly the same."""

import random

WORDS = [
    "the",
    "actor",
    "used",
    "this",
    "tool",
    "to",
    "move",
    "files",
    "between",
    "many",
    "hosts",
    "and",
    "then",
    "read",
    "all",
    "running",
    "processes",
    "of",
    "each",
    "server",
]


def sentence(rng: random.Random, words: int = 20) -> str:
    """So many words, drawn with replacement."""
    return " ".join(rng.choices(WORDS, k=words))
