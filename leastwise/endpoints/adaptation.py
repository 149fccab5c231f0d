"""Getting to know an endpoint: what it refuses is asked otherwise, said, and remembered once it has worked.

Refusals are not billed, so the probe is the first request itself: asked alone before the others, its answer is kept
like any other. It sends nothing itself.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

from leastwise.endpoints.failure import WEB_PAGE, Failure
from leastwise.endpoints.habits import is_of_content, known_habits, suspects, understood
from leastwise.endpoints.providers import is_own_host, url_of
from leastwise.endpoints.request import Request, Target
from leastwise.errors import BadInput, CannotBeAsked
from leastwise.redaction import redacted
from leastwise.stores.answer_store import StoredAnswer, answer_key
from leastwise.stores.remembered import Remembered
from leastwise.use_case.habits import Habits

log = logging.getLogger(__name__)

Call = Callable[[Request, Target], Awaitable[StoredAnswer | Failure]]
NO_REFUSALS = frozenset({"401", "402", "403", "408", "409", "425", "429", "502", "503", "504", "529"})
UNNAMED = frozenset({"400", "415", "422", "501"})  # statuses of a refusal that may name nothing
SHOWN = 200


class Acquaintance:
    """What is known by now of one target. With a `memory` a target of unknown habits is met by one request alone."""

    def __init__(self, target: Target, memory: Remembered | None = None) -> None:
        self._declared, self._memory = target.habits, memory
        self._key = _identity(target)
        self._fact = memory.get(self._key) if memory else {}
        self._met: set[tuple[bool, bool]] = set()
        self.saw_thinking = self._has_answered = False
        self._found = _habits_in(self._fact)
        self.target = replace(target, habits=self._declared.over(self._found.over(known_habits(target))))

    def wants_to_meet(self, request: Request) -> bool:
        """Whether a request of this kind should go out alone first: no other like it has been answered here."""
        unknown = self._memory is not None and not is_own_host(self.target)
        return unknown and (request.is_constrained, request.wants_confidence) not in self._met

    def have_met(self, request: Request) -> None:
        """Requests of this kind go out together from now on."""
        self._met.add((request.is_constrained, request.wants_confidence))

    def require(self, request: Request) -> None:
        """CannotBeAsked for a request that this model is known not to take."""
        if request.is_constrained and self.target.habits.json_schema is False:
            raise CannotBeAsked(self._no_schema(str(self._fact.get("no schema", "known of it"))))
        starved = self._fact.get("starved")
        if not self._may_think and isinstance(starved, int) and request.most_output_tokens <= starved:
            raise CannotBeAsked(self._starved(starved))

    def note_answer(self, request: Request, answer: StoredAnswer | None) -> None:
        """CannotBeAsked where the answer that was to show how it is asked went into thinking nobody had allowed for."""
        is_cut = answer is not None and not answer.text.strip() and answer.finish_reason == "length"
        if is_cut and self.saw_thinking and not self._may_think:
            self._remember({"starved": request.most_output_tokens})
            raise CannotBeAsked(self._starved(request.most_output_tokens))

    @property
    def _may_think(self) -> bool:
        return self.target.reasoning not in (None, "none")

    def adopt(self, target: Target) -> None:
        """Ask so from now on: it has worked. What was learned is said once and remembered."""
        self._has_answered = True
        if target.habits == self.target.habits:
            return
        learned = {name: value for name, value in target.habits if getattr(self.target.habits, name) != value}
        self.target = target
        self._found = Habits.model_validate(learned).over(self._found)
        self._remember({"habits": self._found.model_dump(mode="json", exclude_none=True)})
        words = ", ".join(f"{name}: {str(value).lower()}" for name, value in learned.items())
        log.info(
            f"{target.uri} at {redacted(url_of(target))} is asked with {words}, for it refused otherwise{self._where()}"
        )

    def refuse_schema(self, reason: str) -> CannotBeAsked:
        """What to raise where it turns out that the model cannot be held to a schema, which is remembered."""
        habits = Habits(json_schema=False)
        self.target = replace(self.target, habits=habits.over(self.target.habits))
        self._found = habits.over(self._found)
        self._remember({"habits": self._found.model_dump(mode="json", exclude_none=True), "no schema": reason})
        return CannotBeAsked(self._no_schema(reason))

    def remedy(self, failure: Failure) -> str:
        """The failure in words, with the field of the use case that can put it right.

        BadInput where a web page is all that ever came.
        """
        if failure.kind == WEB_PAGE and not self._has_answered:
            raise BadInput(f"{self.target.shown}: {failure.message}")
        if failure.kind not in UNNAMED or failure.remedy:
            return failure.message
        return f"{failure.message} [habits on the model say how it is asked]"

    def _no_schema(self, reason: str) -> str:
        return (
            f"{self.target.uri}: takes no JSON schema, so a constrained answer cannot be asked for ({reason}); if it "
            f"does, set habits.json_schema: true on the model"
        )

    def _starved(self, cap: int) -> str:
        return (
            f"{self.target.uri}: thinks before it answers, and its whole cap of {cap} tokens went into thinking "
            "(finish_reason length, no answer); set reasoning on the model to low, medium, high or a number of tokens"
        )

    def _where(self) -> str:
        return f"; remembered in {self._memory.path(self._key)}" if self._memory else ""

    def _remember(self, fact: dict[str, object]) -> None:
        self._fact |= {"uri": self.target.uri, "url": redacted(url_of(self.target))} | fact
        if self._memory:
            self._memory.put(self._key, self._fact)


@dataclass
class Attempt:
    """One request on its way to whoever takes it in some form; `alone`: unnamed refusals are worth trying to place."""

    acquaintance: Acquaintance
    request: Request
    alone: bool = False

    def __post_init__(self) -> None:
        self.target = self._start = self.acquaintance.target
        self._suspects: Iterator[Habits] | None = None

    async def made(
        self, call: Callable[[Request, Target], Awaitable[StoredAnswer | Failure]]
    ) -> StoredAnswer | Failure:
        """One call, and where it is refused for the way it is asked, asked in another; refusals are not billed."""
        outcome = await call(self.request, self.target)
        while isinstance(outcome, Failure) and (other := self.next(outcome)):
            outcome = await call(self.request, other)
        if isinstance(outcome, StoredAnswer):
            self.acquaintance.adopt(self.target)
        return outcome

    def next(self, failure: Failure) -> Target | None:
        """How to ask instead, after this failure; None where asking otherwise would not help.

        CannotBeAsked where it was refused for its schema.
        """
        known = self.acquaintance.target
        if known is not self._start:  # somebody else has found out meanwhile
            self.target = self._start = known
            return known
        if self.request.decides or not failure.kind.isdigit() or failure.kind in NO_REFUSALS:
            return None
        learned = understood(failure.message, self.request, self.target.habits)
        if learned is None:
            return self._place(failure)
        if learned.json_schema is False:
            raise self.acquaintance.refuse_schema(redacted(failure.message)[-SHOWN:])
        self.target = replace(self.target, habits=learned.over(self.target.habits))
        return self.target

    def _place(self, failure: Failure) -> Target | None:
        if not self.alone or failure.kind not in UNNAMED or is_of_content(failure.message):
            return None
        if self._suspects is None:
            start = self.target
            self._suspects = iter(suspects(self.request, start.habits, start.provider_cache))
            self._start_habits = start.habits
        suspect = next(self._suspects, None)
        if suspect is None:
            return None
        self.target = replace(self.target, habits=suspect.over(self._start_habits))
        return self.target


def _identity(target: Target) -> str:
    """Names what habits belong to: the model at its address, under the name it is asked for."""
    name = "".join(letter if letter.isalnum() else "-" for letter in target.model_name)[-40:].strip("-")
    return f"{name}-{answer_key(uri=target.uri, url=url_of(target), name=target.model_name)[:12]}"


def _habits_in(fact: dict[str, object]) -> Habits:
    try:
        return Habits.model_validate(fact.get("habits") or {})
    except ValueError:  # of a later version
        return Habits()
