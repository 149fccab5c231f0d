"""Putting together who answers for a candidate, from the outside in: cache, guard, cascade, then a student, trained
weights or a model behind HTTP.

It asks nothing itself. Servers that are started end when the `with` block does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from leastwise.answering.answerer import Answerer, Payer, Surroundings
from leastwise.answering.cascade import CascadeAnswerer
from leastwise.answering.exact_cache import ExactCache
from leastwise.answering.guard import GuardedAnswerer
from leastwise.answering.served import ServedAnswerer
from leastwise.answering.student import StudentAnswerer
from leastwise.answering.trained import TrainedAnswerer
from leastwise.ladder.candidate import CachePolicy, Candidate
from leastwise.money.curves import SECONDS_PER_MONTH


@contextmanager
def open_answerer(
    work: Surroundings, candidate: Candidate, payer: Payer | None = None, *, confident: bool = False
) -> Iterator[Answerer]:
    """What answers for this candidate.

    Its calls are paid as the evaluation of the candidate's own stage, unless a `payer` is named. `confident`: answers
    come with a confidence where the model tells one.
    """
    with ExitStack() as stack:
        answerer = _behind_cache(work, candidate, stack, payer, confident)
        if not candidate.cache.exact:
            yield answerer
            return
        requests_per_s = work.use_case.traffic.requests_per_month / SECONDS_PER_MONTH
        is_cached_elsewhere = candidate.cache.provider and not work.catalogue.is_served_here(candidate)
        bare = candidate.model_copy(update={"cache": CachePolicy()})
        open_bare = partial(_behind_cache, work, bare, stack, payer, confident) if is_cached_elsewhere else None
        yield ExactCache(answerer, candidate, requests_per_s, stack, open_bare)


def _behind_cache(
    work: Surroundings, candidate: Candidate, stack: ExitStack, payer: Payer | None, confident: bool
) -> Answerer:
    uncached = candidate.cache.model_copy(update={"exact": False})  # a response cache is in front of the whole
    if candidate.guard:
        plain = candidate.model_copy(update={"guard": None, "cache": uncached})
        needs_confidence = confident or candidate.guard.score != "distance"
        inner = stack.enter_context(open_answerer(work, plain, payer, confident=needs_confidence))
        return GuardedAnswerer(work, inner, candidate.guard)
    if candidate.cascade:
        pays = payer or Payer(candidate.stage, "evaluation")
        rest = candidate.model_copy(update={"cascade": None, "cache": uncached})
        first = stack.enter_context(open_answerer(work, candidate.cascade.first, pays, confident=True))
        then = stack.enter_context(open_answerer(work, rest, pays))
        return CascadeAnswerer(first, then, candidate.cascade.below)
    if candidate.weights and candidate.weights.kind == "student":
        return StudentAnswerer(work, candidate, stack)
    if candidate.weights:
        return TrainedAnswerer(work, candidate, stack, confident)
    return ServedAnswerer(work, candidate, stack, payer, confident)
