"""What a search on dev may ask and cost: how many variants there are, and how many nearest examples at most."""

from __future__ import annotations

from leastwise.use_case import Stage, UseCase

NEAREST = (1, 2, 4, 8, 16)  # of retrieved examples; 4 were as good as 16 at a third of the tokens (docs/levels.md)
SEARCHED: tuple[Stage, ...] = ("prompt", "rag")


def search_usd(use_case: UseCase, stage: Stage) -> float:
    """The most that the search of a stage may cost, dollars; 0 where none is made."""
    return use_case.search.usd if use_case.searches and stage in SEARCHED else 0.0


def most_examples(use_case: UseCase) -> int:
    """The most examples that are retrieved for a request, which a search may choose."""
    return max(use_case.retrieval.examples, max(NEAREST) if use_case.searches and use_case.retrieval.examples else 0)
