"""Who answers for a candidate and how they are reached: an endpoint with its name, key and habits, or open weights on a
server that is started here and ends with the stack it was given.

Candidates that differ in their words, their effort or their reading alone share a server (`Reached.target_of`).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from leastwise.answering.answerer import Payer, Surroundings
from leastwise.answering.servers import causal_server, engine_for, served_name
from leastwise.content import identity
from leastwise.endpoints.inference import Asker
from leastwise.endpoints.request import Target
from leastwise.engines.engine import Running
from leastwise.ladder.candidate import Candidate
from leastwise.models.chat import takes_system
from leastwise.stores.remembered import Remembered
from leastwise.use_case.habits import NO_HABITS, Habits
from leastwise.use_case.price import Usage


@dataclass(frozen=True)
class Reached:
    """Who is asked, and the engine where it is ours."""

    target: Target
    running: Running | None = None

    def target_of(self, candidate: Candidate) -> Target:
        """Who is asked for a candidate of this model: where it decides, a server of ours by that interface; at the
        candidate's own effort.
        """
        if self.running is not None:
            return replace(self.target, interface="system-one") if candidate.decides else self.target
        own = candidate.prompt.reasoning if candidate.prompt else None
        return self.target if own is None else replace(self.target, reasoning=own)


def reach(work: Surroundings, candidate: Candidate, stack: ExitStack) -> Reached:
    """Whose endpoint answers for the candidate; for open weights without one, a server started here."""
    model = work.catalogue.model(candidate.model)
    revision = candidate.revision + (candidate.weights.revision if candidate.weights else "")
    if work.catalogue.is_served_here(candidate):
        engine = engine_for(work.catalogue, candidate)
        running = stack.enter_context(causal_server(engine, work, candidate, model.context_tokens))
        endpoint, can = running.endpoint(served_name(candidate)), engine.capabilities
        takes = takes_system(work.tokenizer(model.uri))
        # What somebody else's server of the base takes says nothing of ours, and training rendered chats without it.
        said = NO_HABITS if candidate.weights and model.base_url else model.habits
        lacks = {"json_schema": can.json_schema, "logprobs": can.logprobs}
        unable = {name: False for name, is_able in lacks.items() if is_able is False}
        target = Target.served(endpoint, identity(candidate.model), revision, engine.computes_as)
        known = Habits(system_role=None if takes else False, **unable).over(target.habits)
        return Reached(replace(target, habits=said.over(known)), running)
    return Reached(
        Target(
            identity(candidate.model),
            revision,
            model=model.name_served,
            base_url=model.base_url,
            provider_cache=candidate.cache.provider,
            key_variable=model.key_variable,
            reasoning=model.reasoning,
            habits=model.habits,
        )
    )


def target_of(work: Surroundings, candidate: Candidate, stack: ExitStack) -> Target:
    """Who is asked for the candidate; for open weights without an endpoint, a server started here."""
    return reach(work, candidate, stack).target_of(candidate)


def open_asker(work: Surroundings, candidate: Candidate, stack: ExitStack, payer: Payer | None = None) -> Asker:
    """A client of the candidate's endpoint; for open weights without one, of a server started here."""
    return asker_of(work, candidate, target_of(work, candidate, stack), stack, payer)


def asker_of(
    work: Surroundings, candidate: Candidate, target: Target, stack: ExitStack, payer: Payer | None = None
) -> Asker:
    """A client of whoever is asked for the candidate. Whatever is not served by ourselves is metered."""
    pays = payer or Payer(candidate.stage, "evaluation")
    price, concurrency = work.catalogue.price_in_venue(candidate), work.use_case.traffic.concurrency
    asker = Asker(
        target,
        store=work.answers,
        price=price.usd if price else free,
        meter=work.meter(pays) if work.catalogue.is_metered(candidate) else None,
        concurrency=concurrency,
        warm_first=candidate.cache.provider,
        place=f"{candidate.venue} at {concurrency}",
        memory=None if work.catalogue.is_served_here(candidate) else Remembered(work.home / "habits"),
    )
    return stack.enter_context(asker)


def free(usage: Usage) -> float:
    """The price where machines are paid instead."""
    return 0.0
