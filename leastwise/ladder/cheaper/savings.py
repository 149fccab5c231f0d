"""Changes of a use case by which it is decided with fewer gate examples or for less, each recomputed as a whole.

A change that saves nothing is not named, and none is made. What it gives up stands in its sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field, ValidationError

from leastwise.evidence.examples_needed import MOST_EXAMPLES, expected_examples
from leastwise.ladder.alphas import first_alphas
from leastwise.ladder.cheaper.outlook import ASKED, LEAST_SHOWN_USD, Outlook, outlook_of
from leastwise.ladder.cheaper.proposals import Proposal, proposals, with_change
from leastwise.ladder.needs import ruled_out
from leastwise.ladder.premises import Premises
from leastwise.part import Result
from leastwise.use_case import UseCase


class Saving(Result):
    """A change, what deciding takes with it and without, and both in a sentence."""

    change: dict[str, object] = Field(description="Fields of the use case and what to set them to; empty: of the data.")
    examples: int = Field(ge=0, description="Gate examples that decide, with the change.")
    examples_before: int = Field(ge=0)
    calls: int = Field(ge=0, description="Of prompt and rag, searches included, with the change.")
    calls_before: int = Field(ge=0)
    usd: float = Field(ge=0, description="Dollars of these calls.")
    usd_before: float = Field(ge=0)
    said: str

    @property
    def usd_less(self) -> float:
        """Dollars that it saves; negative where it costs more."""
        return self.usd_before - self.usd


def savings(use_case: UseCase, premises: Premises) -> tuple[Saving, ...]:
    """What would make this cheaper to decide, the most dollars first, then the most examples."""
    facts = premises.facts
    if facts is None:
        return ()
    before = outlook_of(use_case, premises, facts)
    found = [saved for each in proposals(use_case, premises, facts) if (saved := _of(each, use_case, premises, before))]
    found += [*_reference(use_case, premises, before), *_labels(use_case, premises, before)]
    return tuple(sorted(found, key=lambda each: (-round(each.usd_less, 6), each.examples - each.examples_before)))


def _of(proposal: Proposal, use_case: UseCase, premises: Premises, before: Outlook) -> Saving | None:
    """What a proposal saves; None where nothing, or where it makes no use case."""
    facts = premises.facts
    assert facts is not None
    offered = {offer.model.uri: offer.price for offer in premises.offers}
    try:
        changed = with_change(use_case, proposal.change)
    except ValidationError:
        return None
    after = outlook_of(changed, premises, facts.model_copy(update={"prices": facts.prices | offered}))
    if not _is_cheaper(before, after):
        return None
    said = f"{proposal.what}: {_figures(use_case, premises, before, after)}{proposal.but}"
    return _saving(proposal.change, before, after, said)


def _is_cheaper(before: Outlook, after: Outlook) -> bool:
    saves_usd = after.usd < before.usd - LEAST_SHOWN_USD
    return saves_usd or (after.examples < before.examples and after.usd <= before.usd + LEAST_SHOWN_USD)


def _saving(change: Mapping[str, object], before: Outlook, after: Outlook, said: str) -> Saving:
    return Saving(
        change=dict(change),
        examples=after.examples,
        examples_before=before.examples,
        calls=after.calls,
        calls_before=before.calls,
        usd=after.usd,
        usd_before=before.usd,
        said=said,
    )


def _figures(use_case: UseCase, premises: Premises, before: Outlook, after: Outlook) -> str:
    said = [f"about {after.examples:,} gate examples decide instead of {before.examples:,}"]
    if after.examples == before.examples:
        said = [f"about {after.examples:,} gate examples decide as before"]
    if before.examples > premises.gate_units >= after.examples:
        said.append(f"the {premises.gate_units:,} that are there are enough")
    if after.calls != before.calls:
        more = "fewer" if after.calls < before.calls else "more"
        said.append(f"{abs(before.calls - after.calls):,} calls {more} in {' and '.join(_asked(use_case, premises))}")
    if abs(less := before.usd - after.usd) > LEAST_SHOWN_USD:
        said.append(f"${abs(less):.4g} {'less' if less > 0 else 'more'} of ${before.usd:.4g}")
    return ", ".join(said)


def _asked(use_case: UseCase, premises: Premises) -> list[str]:
    return [stage for stage in ASKED if ruled_out(use_case, stage, premises.situation) is None]


def _reference(use_case: UseCase, premises: Premises, before: Outlook) -> Iterator[Saving]:
    """Where words alone surely reach the bound, no model need be asked."""
    quality, found = use_case.requirements.quality, premises.found
    if quality is None or use_case.reference == "stop" or found is None or found.words_lower is None:
        return
    if found.words_lower < quality.bound:
        return
    after = Outlook(before.candidates + 1, before.examples, 0, 0.0)
    said = (
        f"reference: stop: words in a linear classifier surely reach {found.words_lower:.3f} on dev, {quality.bound:g} "
        f"is wanted; if row 0, which embeds, passes too, none of {before.calls:,} calls is made, ${before.usd:.4g} less"
    )
    yield _saving({"reference": "stop"}, before, after, said)


def _labels(use_case: UseCase, premises: Premises, before: Outlook) -> Iterator[Saving]:
    """Gate answers that no candidate gets right, since what says nearly the same has another label."""
    quality, found = use_case.requirements.quality, premises.found
    rows = premises.rows.get("gate", 0)
    if quality is None or found is None or not found.unanswerable or not rows or not quality.margin:
        return
    alphas, limit = first_alphas(use_case), (quality.bound, quality.margin)
    seen = quality.bound - found.unanswerable / rows
    start = (
        f"{found.unanswerable:,} of {rows:,} gate rows have another label than what says nearly the same: where that "
        f"is a mistake, a candidate as good as asked is measured at {max(seen, 0):.3f}"
    )
    right = expected_examples(quality.bound, *limit, alphas.to_pass, alphas.to_fail)
    measured = expected_examples(max(seen, 0.0), *limit, alphas.to_pass, alphas.to_fail)
    if measured.passes:
        takes = f"passes after about {measured.examples:,} examples instead of {right.examples:,}"
    else:
        takes = "rather fails than passes" if measured.examples < MOST_EXAMPLES else "is never decided"
    after = Outlook(before.candidates, right.examples, before.calls, before.usd)
    noisy = Outlook(before.candidates, measured.examples, before.calls, before.usd)
    yield _saving(
        {}, noisy, after, f"{start}, and {takes}; correct or drop them (`validation/gate.md` of a climb names them)"
    )
