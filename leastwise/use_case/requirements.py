"""What a winner must meet: a bound and a tolerance by requirement, and where data may go.

It tests nothing (see `leastwise.ladder.gate`).
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from leastwise.part import Part
from leastwise.use_case.hosts import is_allowed
from leastwise.use_case.model import Model, Venue

RequirementName = Literal[
    "quality", "adherence", "p95_latency_ms", "usd_per_1k_requests", "ood_decline", "shift_quality", "general_ability"
]
SHARES: frozenset[str] = frozenset({"quality", "adherence", "ood_decline", "shift_quality", "general_ability"})
Better = Literal["higher", "lower"]


class Bound(Part):
    """One requirement: the value wanted and the tolerance the gate may use."""

    bound: float = Field(description="The value wanted.", allow_inf_nan=False)
    margin: float = Field(
        ge=0,
        allow_inf_nan=False,
        description="Tolerance: a candidate this much worse than the bound is wrongly passed with probability <= "
        "alpha.",
    )


class Residency(Part):
    """Where prompts, judges, teachers and embeddings may go; binding from the first stage on."""

    venues: tuple[Venue, ...] = Field(min_length=1, description="Venues data may be sent to.")
    hosts: tuple[str, ...] = Field(
        (),
        description="Host names data may be sent to, this machine always; empty: any host of the venues. Each name "
        "stands for itself: api.example.com does not allow eu.api.example.com.",
    )

    @model_validator(mode="after")
    def _hosts_are_names(self) -> Self:
        for host in self.hosts:
            if not host.strip() or set(host) & set("/\\@%*? "):
                raise ValueError(f"hosts: {host!r} is no host name; write the name alone, such as api.example.com")
        return self

    def allows(self, model: Model) -> bool:
        """Whether data may go to this model, judged by the host its requests go to; weights that answer on this machine
        for an own machine need none.
        """
        if model.venue not in self.venues:
            return False
        host = model.request_host
        if not self.hosts:
            return True
        return model.venue == "self_host" if host is None else is_allowed(host, self.hosts)


class Requirements(Part):
    """What the winner must meet. Any subset; a requirement left out is not tested."""

    quality: Bound | None = Field(None, description="The task's metric, a share in 0..1.")
    adherence: Bound | None = Field(None, description="Share of outputs in the demanded format.")
    p95_latency_ms: Bound | None = Field(None, description="95th percentile of latency over HTTP, milliseconds.")
    usd_per_1k_requests: Bound | None = Field(None, description="All-in dollars for 1,000 requests at this traffic.")
    ood_decline: Bound | None = Field(None, description="Share of out-of-scope inputs declined.")
    shift_quality: Bound | None = Field(None, description="Quality on shifted inputs.")
    general_ability: Bound | None = Field(
        None,
        description="Share of general tasks the model itself still gets right (4 choices: 0.25 is chance); open "
        "weights only.",
    )
    residency: Residency | None = Field(None, description="Where data may go.")

    @model_validator(mode="after")
    def _bounds_make_sense(self) -> Self:
        if not self.bounds:
            raise ValueError(
                "no requirement with a bound; add at least one, for example quality: {bound: 0.8, margin: 0.05}"
            )
        for name, limit in self.bounds.items():
            _check_range(name, limit)
        if self.quality and self.shift_quality and self.shift_quality.bound > self.quality.bound:
            raise ValueError(
                f"shift_quality.bound: {self.shift_quality.bound:g} contradicts quality.bound {self.quality.bound:g}: "
                "shifted inputs cannot be asked to do better than ordinary ones; lower it or raise quality"
            )
        return self

    @property
    def bounds(self) -> dict[RequirementName, Bound]:
        """The requirements that are measured, in the order they are reported."""
        named: dict[RequirementName, Bound | None] = {
            "quality": self.quality,
            "adherence": self.adherence,
            "p95_latency_ms": self.p95_latency_ms,
            "usd_per_1k_requests": self.usd_per_1k_requests,
            "ood_decline": self.ood_decline,
            "shift_quality": self.shift_quality,
            "general_ability": self.general_ability,
        }
        return {name: bound for name, bound in named.items() if bound is not None}


def _check_range(name: RequirementName, limit: Bound) -> None:
    if name in SHARES:
        if not 0 < limit.bound <= 1:
            raise ValueError(f"{name}.bound: {limit.bound:g} is outside 0..1, the range of a share; give 0.9 for 90%")
        if limit.margin >= limit.bound:
            raise ValueError(
                f"{name}.margin: {limit.margin:g} reaches from the bound {limit.bound:g} down to 0, so anything would "
                "pass; give a margin well below the bound, for example 0.05"
            )
    elif limit.bound <= 0:
        raise ValueError(f"{name}.bound: {limit.bound:g} must be above 0")
    elif limit.margin > 2 * limit.bound:
        raise ValueError(
            f"{name}.margin: {limit.margin:g} is more than twice the bound {limit.bound:g}, so the gate would say "
            "nothing; give a margin below the bound"
        )


class Requirement(Part):
    """A bound a candidate must meet and the tolerance below it."""

    name: str
    bound: float
    margin: float = Field(ge=0)

    @property
    def better(self) -> Better:
        """Which direction is good: shares are better higher, milliseconds and dollars lower."""
        return "higher" if self.name in SHARES else "lower"

    @property
    def limit(self) -> float:
        """`floor` where higher is better, `ceiling` where lower is: surely on the good side of it is PASS."""
        return self.bound - self.margin if self.better == "higher" else self.bound + self.margin
