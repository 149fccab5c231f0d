"""Changes by which a use case may be cheaper to decide. Whether each is, `savings.py` works out.

What a proposal gives up stands beside it. A change of the data is none of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from leastwise.evidence.examples_needed import MARGINS, examples_to_decide
from leastwise.ladder.alphas import candidates_on_gate_set, first_alphas
from leastwise.ladder.needs import ruled_out
from leastwise.ladder.premises import Premises
from leastwise.money.expected_cost import Facts
from leastwise.money.request_usage import request_usage
from leastwise.use_case import LADDER, UseCase
from leastwise.use_case.model import Model
from leastwise.use_case.requirements import SHARES

SEARCH = {"search.usd": 0.2, "search.rows": 100}  # that is proposed where none is made


class Proposal(NamedTuple):
    """A change of fields, in words, and what is given up by it."""

    change: Mapping[str, object]
    what: str
    but: str


def with_change(use_case: UseCase, change: Mapping[str, object]) -> UseCase:
    """The use case with fields (`requirements.quality.margin`) set; ValidationError where it then is none."""
    fields = use_case.model_dump(mode="json")
    for path, value in change.items():
        *above, last = path.split(".")
        held = fields
        for name in above:
            held = held[name]
        held[last] = value
    return UseCase.model_validate(fields)


def proposals(use_case: UseCase, premises: Premises, facts: Facts) -> Iterator[Proposal]:
    """All of them, whether they save or not."""
    yield from _margins(use_case, premises)
    yield from _this_set(use_case, premises)
    yield from _fewer_models(use_case, facts)
    yield from _cheaper_model(use_case, premises, facts)
    yield from _searching(use_case)
    yield from _last_stage(use_case, premises)


def _margins(use_case: UseCase, premises: Premises) -> Iterator[Proposal]:
    """The next margin of the share that takes most examples, and the next one that the rows there decide."""
    alphas, on_gate = first_alphas(use_case), SHARES - {"ood_decline", "shift_quality", "general_ability"}
    limits = {name: limit for name, limit in use_case.requirements.bounds.items() if name in on_gate and limit.margin}

    def examples(name: str, margin: float) -> int:
        bound = next(limit.bound for each, limit in limits.items() if each == name)
        return examples_to_decide(bound, margin, alphas.to_pass, alphas.to_fail)

    takes = {name: examples(name, limit.margin) for name, limit in limits.items()}
    for name, limit in limits.items():
        if takes[name] < max(takes.values()):
            continue
        wider = [each for each in MARGINS if limit.margin < each < limit.bound - 0.01]
        there = [each for each in wider if examples(name, each) <= premises.gate_units]
        for margin in dict.fromkeys([*wider[:1], *there[:1]]):
            yield Proposal(
                {f"requirements.{name}.margin": margin},
                f"requirements.{name}.margin {limit.margin:g} → {margin:g}",
                f"; a candidate as bad as {limit.bound - margin:g} may then pass, rarely",
            )


def _this_set(use_case: UseCase, premises: Premises) -> Iterator[Proposal]:
    if use_case.data.population == "future_traffic":
        yield Proposal(
            {"data.population": "this_set"},
            "data.population: this_set",
            f"; the {premises.gate_units:,} are then what is decided about, and nothing is said of other requests",
        )


def _fewer_models(use_case: UseCase, facts: Facts) -> Iterator[Proposal]:
    """Without the dearest model, and with the cheapest alone: the others share alpha whether they are asked or not."""
    asked = [m for m in use_case.models.candidates if m.uri in facts.prices and use_case.may_be_sent_to(m)]
    dearest_last = sorted(asked, key=lambda model: _usd_a_request(use_case, model, facts))
    candidates = use_case.model_dump(mode="json")["models"]["candidates"]
    for kept in dict.fromkeys([len(dearest_last) - 1, 1]):
        if not 0 < kept < len(dearest_last):
            continue
        uris = [model.uri for model in dearest_last[:kept]]
        change: dict[str, object] = {"models.candidates": [each for each in candidates if each["uri"] in uris]}
        shared = f"{kept} of {len(asked)} models, {', '.join(uris)}"
        without = ", ".join(model.uri for model in dearest_last[kept:])
        yield Proposal(
            change, f"models.candidates: {shared}", _shared(use_case, change) + f"; {without} is never tried"
        )


def _shared(use_case: UseCase, change: Mapping[str, object]) -> str:
    before, after = candidates_on_gate_set(use_case), candidates_on_gate_set(with_change(use_case, change))
    return f" ({after} candidates share alpha instead of {before})"


def _cheaper_model(use_case: UseCase, premises: Premises, facts: Facts) -> Iterator[Proposal]:
    """A model of a provider that is asked already, in place of the cheapest that is named."""
    asked = [m for m in use_case.models.candidates if m.uri in facts.prices and use_case.may_be_sent_to(m)]
    if not asked:
        return
    offered = {each.model.uri: each.price for each in premises.offers}
    priced = facts.model_copy(update={"prices": facts.prices | offered})
    first = min(asked, key=lambda model: _usd_a_request(use_case, model, facts))
    named, dumped = {model.uri for model in use_case.models.candidates}, use_case.model_dump(mode="json")
    for offer in premises.offers:
        its, theirs = (1000 * _usd_a_request(use_case, each, priced) for each in (offer.model, first))
        if offer.model.uri in named or its >= theirs or not use_case.may_be_sent_to(offer.model):
            continue
        others = [each for each in dumped["models"]["candidates"] if each["uri"] != first.uri]
        change: dict[str, object] = {"models.candidates": [offer.model.model_dump(mode="json"), *others]}
        yield Proposal(
            change,
            f"models.candidates: {offer.model.uri} in place of {first.uri}, ${its:.4g} for 1,000 requests instead of "
            f"${theirs:.4g}",
            "; whether it is as good is what the gate is for",
        )


def _usd_a_request(use_case: UseCase, model: Model, facts: Facts) -> float:
    usage = request_usage(use_case, "prompt", facts.sizes)
    thinking = model.expected_reasoning_tokens
    return facts.prices[model.uri].usd(usage) + thinking * facts.prices[model.uri].output / 1e6


def _searching(use_case: UseCase) -> Iterator[Proposal]:
    """Without the search on dev, or with it where it is off."""
    if use_case.searches:
        but = "; then prompts are taken as written, and levels 1 and 2 are not exhausted"
        yield Proposal({"search.usd": 0.0}, f"search.usd {use_case.search.usd:g} → 0", but)
    elif not use_case.search.is_on and use_case.data.dev and not use_case.is_graded:
        said = ", ".join(f"{name} {value:g}" for name, value in SEARCH.items())
        yield Proposal(dict(SEARCH), said, "; one candidate a model is then judged, the best on dev")


def _last_stage(use_case: UseCase, premises: Premises) -> Iterator[Proposal]:
    """Stages at the end that can never run here share alpha all the same."""
    out = {stage: ruled_out(use_case, stage, premises.situation) for stage in use_case.reachable_stages}
    runs = [stage for stage in use_case.reachable_stages if out[stage] is None]
    if runs and runs[-1] != use_case.last_stage:
        beyond = LADDER[LADDER.index(runs[-1]) + 1 : LADDER.index(use_case.last_stage) + 1]
        change: dict[str, object] = {"last_stage": runs[-1]}
        what = f"last_stage: {runs[-1]}, for {', '.join(beyond)} can never run here"
        yield Proposal(change, what, _shared(use_case, change))
