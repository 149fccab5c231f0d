"""What a search on dev may ask and cost: how many variants there are, and how many nearest examples at most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from leastwise.use_case import Stage, UseCase
from leastwise.use_case.price import Price, Usage

NEAREST = (1, 2, 4, 8, 16)  # of retrieved examples; 4 were as good as 16 at a third of the tokens (docs/levels.md)
SEARCHED: tuple[Stage, ...] = ("prompt", "rag")
THINKING_VARIANTS = 1.5  # more of them where a model thinks: less effort than it is allowed
EXPECTED_VARIANTS: dict[Stage, float] = {"prompt": 5, "rag": 6}  # asked on all rows, those that are stopped in part


def search_usd(use_case: UseCase, stage: Stage) -> float:
    """The most that the search of a stage may cost, dollars; 0 where none is made."""
    return use_case.search.usd if use_case.searches and stage in SEARCHED else 0.0


def most_examples(use_case: UseCase) -> int:
    """The most examples that are retrieved for a request, which a search may choose."""
    return max(use_case.retrieval.examples, max(NEAREST) if use_case.searches and use_case.retrieval.examples else 0)


class ExpectedSearch(NamedTuple):
    """What a stage's search is expected to cost, dollars, and the arithmetic."""

    usd: float
    calls: int
    step: str


def expected_search(
    use_case: UseCase, stage: Stage, dev_rows: int, usage: Usage, prices: Sequence[Price]
) -> ExpectedSearch | None:
    """The search of every model up to the limit, each variant asked like one request of the stage; None without one."""
    most = search_usd(use_case, stage)
    if not most:
        return None
    rows = min(use_case.search.rows, dev_rows)
    thinks = any(model.reasoning_tokens for model in use_case.models.candidates)
    each = round(rows * (EXPECTED_VARIANTS[stage] + (THINKING_VARIANTS if thinks else 0.0)))
    usd = min(most, sum(each * price.usd(usage) for price in prices))
    return ExpectedSearch(
        usd, each * len(prices), f"search on {rows} dev rows: about {each} calls a model = ${usd:.4g}"
    )
