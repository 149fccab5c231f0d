"""What a search on dev may ask and cost: how many variants there are, and how many nearest examples at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from leastwise.use_case import Stage, UseCase
from leastwise.use_case.price import Price, Usage

NEAREST = (1, 2, 4, 8, 16)  # of retrieved examples; 4 were as good as 16 at a third of the tokens (docs/levels.md)
SEARCHED: tuple[Stage, ...] = ("prompt", "rag")
THINKING_VARIANTS = 1.5  # more of them where a model thinks: less effort than it is allowed
MOST_PROPOSALS, MINIBATCH = 12, 8  # instructions a reflection proposes, dev rows it reads for each
REFLECTION_TOKENS = 800  # most that one proposal may have
EXPECTED_CHOSEN = 3  # of the proposals get to the choosing rows
EXPECTED_VARIANTS: dict[Stage, float] = {"prompt": 6, "rag": 8}  # asked on all rows, those that are stopped in part


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
    use_case: UseCase,
    stage: Stage,
    dev_rows: int,
    usage: Usage,
    prices: Sequence[Price],
    priced: Mapping[str, Price] | None = None,
) -> ExpectedSearch | None:
    """The search of every model up to the limit, each variant asked like one request of the stage; None without one.

    `priced`: every model's price by its URI, where one of them may reflect.
    """
    most = search_usd(use_case, stage)
    if not most:
        return None
    rows = min(use_case.search.rows, dev_rows)
    thinks = any(model.reasoning_tokens for model in use_case.models.candidates)
    each = round(rows * (EXPECTED_VARIANTS[stage] + (THINKING_VARIANTS if thinks else 0.0)))
    usd = sum(each * price.usd(usage) for price in prices)
    step = f"search on {rows} dev rows: about {each} calls a model = ${min(most, usd):.4g}"
    reflecting = (priced or {}).get(use_case.search.reflect or "")
    if reflecting is None:
        return ExpectedSearch(min(most, usd), each * len(prices), step)
    asked = min(rows, dev_rows // 4)
    more = round(MINIBATCH * 2 * MOST_PROPOSALS + asked * (1 + EXPECTED_CHOSEN) + 4 * asked)
    told = Usage(MINIBATCH * usage.input_tokens, 0, 0, REFLECTION_TOKENS // 2)
    reflected = sum(more * price.usd(usage) + MOST_PROPOSALS * reflecting.usd(told) for price in prices)
    step += (
        f"; with headroom, {MOST_PROPOSALS} instructions by {use_case.search.reflect} and {more} answers a model = "
        f"${reflected:.4g} more"
    )
    calls = (each + more + MOST_PROPOSALS) * len(prices)
    return ExpectedSearch(min(most, usd + reflected), calls, step)
